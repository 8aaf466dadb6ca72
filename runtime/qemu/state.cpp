#include "runtime/qemu/state.h"

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"

namespace runtime::qemu {
namespace {

using base::Result;
using nlohmann::json;

constexpr uint64_t state_bytes_max = 4u << 20;

}  // namespace

Result<> save(const std::string& path, const VmState& state) {
  const json object = {
      {"id", state.id},
      {"generation", state.generation},
      {"uuid", state.uuid},
      {"process",
       {{"pid", state.process.pid},
        {"start_ticks", state.process.start_ticks},
        {"boot_id", state.process.boot_id}}},
      {"uid", state.uid},
      {"started_wall_ns", state.started_wall_ns},
      {"health", static_cast<int>(state.health)},
      {"main", guest::to_json(guest::ExecConfig{.id = "main", .process = state.main})}};
  // No machine outlives a loss of power, so its record need not either.
  return base::replace_file(path, base::dump_json(object));
}

Result<VmState> load(const std::string& path) {
  const json object =
      TRY_DURING(base::parse_json(TRY(base::read_file(path, state_bytes_max))), "read '{}'", path);
  VmState state;
  state.id = TRY(base::json_string(object, "id"));
  state.generation = static_cast<uint64_t>(TRY(base::json_int(object, "generation")));
  state.uuid = TRY(base::json_string(object, "uuid"));
  const json process = object.value("process", json::object());
  state.process.pid = TRY(base::json_int(process, "pid"));
  state.process.start_ticks = static_cast<uint64_t>(TRY(base::json_int(process, "start_ticks")));
  state.process.boot_id = TRY(base::json_string(process, "boot_id"));
  state.uid = static_cast<uint32_t>(base::json_int_or(object, "uid", 0));
  state.started_wall_ns = base::json_int_or(object, "started_wall_ns", 0);
  const int64_t health = base::json_int_or(object, "health", 0);
  if (health >= 0 && health <= static_cast<int64_t>(reconciler::Health::Unhealthy))
    state.health = static_cast<reconciler::Health>(health);
  state.main = TRY(guest::exec_config_from_json(object.value("main", json::object()))).process;
  return state;
}

Result<> save_exit(const std::string& path, uint64_t generation, int64_t started_wall_ns,
                   const reconciler::ExitStatus& exit) {
  return base::write_file_atomically(
      path, base::dump_json(json{{"generation", generation},
                                 {"started_wall_ns", started_wall_ns},
                                 {"code", exit.code},
                                 {"vm_died", exit.vm_died},
                                 {"out_of_memory", exit.out_of_memory},
                                 {"finished_wall_ns", exit.finished_wall_ns},
                                 {"reason", exit.reason}}));
}

Result<StoredExit> load_exit(const std::string& path) {
  const json object =
      TRY_DURING(base::parse_json(TRY(base::read_file(path, state_bytes_max))), "read '{}'", path);
  StoredExit stored;
  stored.generation = static_cast<uint64_t>(TRY(base::json_int(object, "generation")));
  stored.started_wall_ns = base::json_int_or(object, "started_wall_ns", 0);
  stored.exit.code = static_cast<int32_t>(TRY(base::json_int(object, "code")));
  stored.exit.vm_died = base::json_bool_or(object, "vm_died", false);
  stored.exit.out_of_memory = base::json_bool_or(object, "out_of_memory", false);
  stored.exit.finished_wall_ns = base::json_int_or(object, "finished_wall_ns", 0);
  stored.exit.reason = base::json_string_or(object, "reason", "");
  return stored;
}

}  // namespace runtime::qemu
