/// Readers of `volumes` and `tmpfs` of a service.

#include <algorithm>

#include <fmt/format.h>

#include "base/names.h"
#include "base/text.h"
#include "base/units.h"
#include "spec/readers.h"

namespace spec::readers {
namespace {

bool is_host_path(std::string_view source) {
  return source.starts_with('.') || source.starts_with('/') || source.starts_with('~');
}

/// Absolute, without `.`, `..` and doubled slashes, so that equal places are equal texts.
std::optional<std::string> read_target(Reading& reading, const Node& node,
                                       const std::string& written) {
  if (written.starts_with('/')) {
    std::string target = absolute_path(reading.context, written);
    if (target != "/") return target;
    reading.error(node, "a mount cannot take the place of the root folder",
                  "mount it at a folder below /");
    return std::nullopt;
  }
  reading.error(node, fmt::format("'{}' is not an absolute path in the container", written),
                "begin it with /");
  return std::nullopt;
}

std::optional<std::string> read_source(Reading& reading, const Node& node, MountType type,
                                       const std::string& written) {
  if (type == MountType::Bind) {
    if (written.starts_with('~') && written != "~" && !written.starts_with("~/")) {
      reading.error(node, "the home folder of another user is not looked up",
                    "write the path out, or begin it with ~/");
      return std::nullopt;
    }
    return absolute_path(reading.context, written);
  }
  if (const auto outcome = base::check_volume_name(written); !outcome) {
    reading.error(node, "not a valid name", outcome.error().to_string());
    return std::nullopt;
  }
  return written;
}

void add_mount(Reading& reading, const Node& node, Mount mount) {
  reading.service().volumes.push_back(std::move(mount));
  reading.draft->mount_places.push_back(node.place);
}

bool take_option(Reading& reading, const Node& node, std::string_view option, Mount& mount) {
  if (option == "rw" || option.empty() || option == "private" || option == "rprivate") return true;
  if (option == "ro") return mount.read_only = true;
  if (option == "nocopy") return mount.no_copy = true;
  if (option == "z" || option == "Z") {
    reading.context.reporter.note(node.place, reading.address, "has no effect here",
                                  fmt::format("option '{}': the VM is the boundary", option));
    return true;
  }
  const bool shares =
      option == "shared" || option == "rshared" || option == "slave" || option == "rslave";
  reading.error(
      node,
      fmt::format("mount option '{}' is not {}", option, shares ? "possible across a VM" : "known"),
      "the options are ro, rw and nocopy");
  return false;
}

/// `TARGET` or `SOURCE:TARGET[:options]`.
void read_short_mount(Reading& reading, const Node& node) {
  const auto pieces = base::split(node.text, ':');
  if (pieces.size() > 3 || (pieces.size() > 1 && (pieces[0].empty() || pieces[1].empty())))
    return reading.error(node, fmt::format("'{}' is not a mount", node.text),
                         "write SOURCE:TARGET or SOURCE:TARGET:ro");
  Mount mount;
  if (pieces.size() > 1) {
    mount.type = is_host_path(pieces[0]) ? MountType::Bind : MountType::Volume;
    const auto source = read_source(reading, node, mount.type, pieces[0]);
    if (!source) return;
    mount.source = *source;
  }
  const auto target = read_target(reading, node, pieces.size() > 1 ? pieces[1] : pieces[0]);
  if (!target) return;
  mount.target = *target;
  if (pieces.size() == 3)
    for (const std::string& option : base::split(pieces[2], ','))
      if (!take_option(reading, node, option, mount)) return;
  add_mount(reading, node, std::move(mount));
}

std::optional<MountType> read_type(Reading& reading, const Node& node) {
  const Node* type = node.find("type");
  if (type == nullptr) {
    reading.error(node, "'type' is missing", "write type: bind, volume or tmpfs");
    return std::nullopt;
  }
  if (type->text == "bind") return MountType::Bind;
  if (type->text == "volume") return MountType::Volume;
  if (type->text == "tmpfs") return MountType::Tmpfs;
  const auto nearest = base::did_you_mean(type->text, {"bind", "volume", "tmpfs"});
  inside(reading, "type")
      .error(*type, fmt::format("mount type '{}' is not supported", type->text),
             "use bind, volume or tmpfs",
             nearest ? fmt::format("did you mean '{}'?", *nearest) : "");
  return std::nullopt;
}

bool flag_inside(Reading& reading, const Node& node, std::string_view group, std::string_view key,
                 bool fallback) {
  const Node* parent = group.empty() ? &node : node.find(group);
  const Node* member = parent == nullptr ? nullptr : parent->find(key);
  if (member == nullptr) return fallback;
  Reading inner =
      inside(reading, group.empty() ? std::string(key) : fmt::format("{}.{}", group, key));
  return boolean(inner, *member).value_or(fallback);
}

/// `bind:` in a volume mount and the like would be lost; say so.
void check_groups(Reading& reading, const Node& node, MountType type) {
  const auto check = [&](const char* group, MountType owner) {
    const Node* found = node.find(group);
    if (found == nullptr || owner == type) return;
    inside(reading, group)
        .error(*found, fmt::format("belongs to mounts of type {} only", group),
               "remove it, or change 'type'");
  };
  check("bind", MountType::Bind);
  check("volume", MountType::Volume);
  check("tmpfs", MountType::Tmpfs);
}

void read_long_source(Reading& reading, const Node& node, Mount& mount) {
  const Node* source = node.find("source");
  if (mount.type == MountType::Tmpfs) {
    if (source != nullptr)
      inside(reading, "source").error(*source, "a tmpfs has no source", "remove it");
    return;
  }
  if (source == nullptr) {
    if (mount.type == MountType::Bind)
      reading.error(node, "'source' is missing", "name the folder of the host");
    return;
  }
  Reading inner = inside(reading, "source");
  if (const auto written = text(inner, *source))
    mount.source = read_source(inner, *source, mount.type, *written).value_or("");
}

void read_long_mount(Reading& reading, const Node& node) {
  const auto type = read_type(reading, node);
  if (!type) return;
  Mount mount{.type = *type};
  check_groups(reading, node, *type);
  read_long_source(reading, node, mount);
  const Node* target = node.find("target");
  if (target == nullptr)
    return reading.error(node, "'target' is missing", "name the path in the container");
  Reading at_target = inside(reading, "target");
  const auto path = read_target(at_target, *target, target->text);
  if (!path) return;
  mount.target = *path;
  mount.read_only = flag_inside(reading, node, "", "read_only", false);
  mount.create_host_path = flag_inside(reading, node, "bind", "create_host_path", true);
  mount.no_copy = flag_inside(reading, node, "volume", "nocopy", false);
  if (const Node* options = node.find("tmpfs")) {
    Reading inner = inside(reading, "tmpfs");
    if (const Node* size = options->find("size")) {
      const auto limit = bytes(inner, *size);
      if (limit && *limit > 0) mount.tmpfs_bytes = limit;  // 0: no limit
    }
    if (const Node* mode = options->find("mode")) mount.tmpfs_mode = file_mode(inner, *mode);
  }
  add_mount(reading, node, std::move(mount));
}

/// One option of `tmpfs: /run:size=64m,mode=1777`.
bool take_tmpfs_option(Reading& reading, const Node& node, const std::string& option,
                       Mount& mount) {
  const size_t equals = option.find('=');
  const std::string name = option.substr(0, equals);
  const std::string value = equals == std::string::npos ? "" : option.substr(equals + 1);
  if (name == "size") {
    mount.tmpfs_bytes = bytes(reading, make_scalar(node, value));
    return mount.tmpfs_bytes.has_value();
  }
  if (name == "mode") {
    mount.tmpfs_mode = file_mode(reading, make_scalar(node, value));
    return mount.tmpfs_mode.has_value();
  }
  if (option == "rw") return true;
  if (option == "ro") return mount.read_only = true;
  reading.error(node, fmt::format("tmpfs option '{}' is not supported by this version", name),
                "the options are size, mode, ro and rw");
  return false;
}

void read_tmpfs(Reading& reading, const Node& node, const std::string& written) {
  const size_t colon = written.find(':');
  Mount mount{.type = MountType::Tmpfs};
  const auto target = read_target(reading, node, written.substr(0, colon));
  if (!target) return;
  mount.target = *target;
  if (colon != std::string::npos)
    for (const std::string& option : base::split(std::string_view(written).substr(colon + 1), ','))
      if (!take_tmpfs_option(reading, node, option, mount)) return;
  add_mount(reading, node, std::move(mount));
}

}  // namespace

void volumes(Reading& reading, const Node& node) {
  for (size_t i = 0; i < node.children.size(); ++i) {
    Reading inner = at_index(reading, i);
    const Node& item = node.children[i];
    item.is_map() ? read_long_mount(inner, item) : read_short_mount(inner, item);
  }
}

void tmpfs(Reading& reading, const Node& node) {
  if (node.is_scalar()) return read_tmpfs(reading, node, node.text);
  for (size_t i = 0; i < node.children.size(); ++i) {
    Reading inner = at_index(reading, i);
    read_tmpfs(inner, node.children[i], node.children[i].text);
  }
}

}  // namespace spec::readers
