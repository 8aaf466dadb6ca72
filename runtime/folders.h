#pragma once
/// Where the runtime keeps what belongs to containers, machines and volumes.

#include <filesystem>
#include <set>
#include <string>
#include <system_error>

namespace runtime {

struct Folders {
  std::string app_root;
  std::string run_root;

  std::string containers() const { return app_root + "/containers"; }
  std::string container(const std::string& id) const { return containers() + "/" + id; }
  std::string disk(const std::string& id) const { return container(id) + "/disk.img"; }
  std::string exit(const std::string& id) const { return container(id) + "/exit.json"; }
  std::string logs(const std::string& id) const { return container(id) + "/log"; }
  std::string boot_log(const std::string& id) const { return container(id) + "/boot.log"; }

  std::string vms() const { return run_root + "/vms"; }
  std::string vm(const std::string& id) const { return vms() + "/" + id; }
  std::string vm_state(const std::string& id) const { return vm(id) + "/state.json"; }

  std::string volumes() const { return app_root + "/volumes"; }
  std::string volume(const std::string& name) const { return volumes() + "/" + name; }
  std::string volume_data(const std::string& name) const { return volume(name) + "/data"; }

  std::string templates() const { return app_root + "/templates"; }
  std::string vm_templates() const { return templates() + "/machines"; }
  std::string template_runs() const { return run_root + "/templates"; }
  std::string zygote_runs() const { return run_root + "/zygotes"; }
  std::string scratch_template() const { return templates() + "/scratch.img"; }
};

/// Names of the folders in `parent`; none if it cannot be read.
inline std::set<std::string> folder_names(const std::string& parent) {
  std::set<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator at(parent, error), end; !error && at != end;
       at.increment(error))
    if (std::error_code failed; at->is_directory(failed)) names.insert(at->path().filename());
  return names;
}

}  // namespace runtime
