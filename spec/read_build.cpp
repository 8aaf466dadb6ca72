/// Reader of a service's `build` section.

#include <fmt/format.h>

#include "base/repository.h"
#include "base/text.h"
#include "spec/readers.h"

namespace spec::readers {
namespace {

/// A folder, or a repository; other addresses are refused where the build begins.
std::string context_path(const ReadContext& context, const std::string& text) {
  const bool is_address =
      text.find("://") != std::string::npos || !base::repository_context(text).empty();
  return is_address ? text : absolute_path(context, text);
}

template <class Read>
void read_member(const Reading& reading, const Node& node, std::string_view key, const Read& read) {
  const Node* member = node.find(key);
  if (member == nullptr) return;
  Reading inner = inside(reading, key);
  read(inner, *member);
}

void read_text(const Reading& reading, const Node& node, std::string_view key, std::string& to) {
  read_member(reading, node, key,
              [&](Reading& inner, const Node& member) { to = text(inner, member).value_or(""); });
}

void read_flag(const Reading& reading, const Node& node, std::string_view key, bool& to) {
  read_member(reading, node, key, [&](Reading& inner, const Node& member) {
    to = boolean(inner, member).value_or(false);
  });
}

void read_texts(const Reading& reading, const Node& node, std::string_view key,
                std::vector<std::string>& to) {
  read_member(reading, node, key,
              [&](Reading& inner, const Node& member) { to = texts(inner, member); });
}

/// A name without a value is taken from the project's environment; not there, the build's own
/// default counts.
void read_arguments(Reading& reading, const Node& node, Build& build) {
  for (Pair& pair : pairs(reading, node)) {
    if (!pair.value) {
      const auto found = reading.context.environment.find(pair.key);
      if (found == reading.context.environment.end()) continue;
      pair.value = found->second;
    }
    build.args[pair.key] = *pair.value;
  }
}

void read_network(Reading& reading, const Node& node, Build& build) {
  const auto value = text(reading, node);
  if (!value) return;
  if (*value != "default" && *value != "none")
    return reading.error(node, fmt::format("a build cannot use the network '{}'", *value),
                         "its steps run in a machine of their own; write 'default' or 'none'");
  build.network = *value == "default" ? "" : *value;
}

/// `default`, `id=path`, or a map of the two.
void read_ssh(Reading& reading, const Node& node, Build& build) {
  const auto add = [&](const std::string& id, const std::optional<std::string>& path) {
    build.ssh.push_back(path ? id + "=" + absolute_path(reading.context, *path) : id);
  };
  if (node.is_scalar()) {
    const size_t equals = node.text.find('=');
    const std::string id = node.text.substr(0, equals);
    return equals == std::string::npos ? add(id, std::nullopt)
                                       : add(id, node.text.substr(equals + 1));
  }
  for (const Pair& pair : pairs(reading, node)) add(pair.key, pair.value);
}

constexpr std::string_view service_scheme = "service:";

/// Folders, repositories, images, and what other services build.
void read_contexts(Reading& reading, const Node& node, Build& build) {
  for (const Pair& pair : pairs(reading, node)) {
    const std::string place = pair.value.value_or("");
    const bool is_service = place.starts_with(service_scheme);
    const bool is_known = is_service || place.starts_with("docker-image://") ||
                          place.find("://") == std::string::npos || base::is_repository(place);
    if (place.empty() || !is_known) {
      Reading inner = inside(reading, pair.key);
      inner.error(*pair.node, fmt::format("'{}' is no context", place),
                  place.starts_with("oci-layout://")
                      ? "load it with 'container image load', and write docker-image://NAME"
                      : "write a folder, https://….git#ref:folder, docker-image://NAME or "
                        "service:NAME");
      continue;
    }
    if (is_service)
      reading.draft->build_services.emplace_back(place.substr(service_scheme.size()),
                                                 pair.node->place);
    build.additional_contexts[pair.key] = is_service ? place : context_path(reading.context, place);
  }
}

/// What `RUN --security=insecure` needs is granted to every step: the machine is the boundary.
void read_entitlements(Reading& reading, const Node& node) {
  for (size_t i = 0; i < node.children.size(); ++i) {
    Reading inner = at_index(reading, i);
    const std::string& name = node.children[i].text;
    if (name == "security.insecure") continue;
    inner.error(node.children[i], fmt::format("a build cannot be entitled to '{}'", name),
                name == "network.host"
                    ? "its steps run in a machine of their own; services of the host are reached "
                      "at the gateway's address"
                    : "the only one is security.insecure");
  }
}

void read_isolation(Reading& reading, const Node& node) {
  const auto value = text(reading, node);
  if (value && *value != "default")
    reading.error(node, fmt::format("there is no isolation '{}' here", *value),
                  "every build runs in a machine of its own; write 'default', or remove it");
}

void read_secret_owner(const Reading& reading, const Node& node, std::string_view key,
                       std::optional<uint32_t>& to) {
  read_member(reading, node, key, [&](Reading& inner, const Node& member) {
    if (const auto id = integer(inner, member, 0, UINT32_MAX - 1)) to = static_cast<uint32_t>(*id);
  });
}

/// `name`, or `{source, target, uid, gid, mode}`.
void read_build_secrets(Reading& reading, const Node& node) {
  for (size_t i = 0; i < node.children.size(); ++i) {
    const Node& item = node.children[i];
    const Reading inner = at_index(reading, i);
    BuildSecretUse use{
        .source = item.text, .secret = {}, .place = item.place, .address = inner.address};
    if (item.is_map()) {
      read_text(inner, item, "source", use.source);
      read_text(inner, item, "target", use.secret.id);
      read_secret_owner(inner, item, "uid", use.secret.user);
      read_secret_owner(inner, item, "gid", use.secret.group);
      read_member(inner, item, "mode", [&](Reading& at, const Node& member) {
        use.secret.mode = file_mode(at, member);
      });
    }
    if (use.secret.id.empty()) use.secret.id = use.source;
    if (use.source.empty())
      inner.error(item, "'source' is missing", "name one of the top-level 'secrets'");
    else
      reading.draft->build_secrets.push_back(std::move(use));
  }
}

/// By the readers of the service's own attributes, into a service of their own.
void read_borrowed(const Reading& reading, const Node& node, Build& build) {
  ServiceDraft borrowed;
  read_member(reading, node, "shm_size", [&](Reading& inner, const Node& member) {
    inner.draft = &borrowed;
    shm_size(inner, member);
  });
  read_member(reading, node, "extra_hosts", [&](Reading& inner, const Node& member) {
    inner.draft = &borrowed;
    extra_hosts(inner, member);
  });
  read_member(reading, node, "labels", [&](Reading& inner, const Node& member) {
    inner.draft = &borrowed;
    labels(inner, member);
  });
  read_member(reading, node, "ulimits", [&](Reading& inner, const Node& member) {
    inner.draft = &borrowed;
    ulimits(inner, member);
  });
  build.shm_bytes = borrowed.service.shm_bytes;
  build.ulimits = std::move(borrowed.service.ulimits);
  build.extra_hosts = std::move(borrowed.service.extra_hosts);
  build.labels = std::move(borrowed.service.labels);
}

void read_dockerfile(const Reading& reading, const Node& node, Build& build) {
  read_text(reading, node, "dockerfile", build.dockerfile);
  read_member(reading, node, "dockerfile_inline", [&](Reading& inner, const Node& member) {
    build.dockerfile_inline = text(inner, member);
    if (node.find("dockerfile") != nullptr)
      inner.error(member, "cannot stand beside 'dockerfile'", "remove one of the two");
  });
}

}  // namespace

void build(Reading& reading, const Node& node) {
  Build build;
  build.context = context_path(reading.context, node.is_scalar() ? node.text : ".");
  reading.draft->build = build;
  if (!node.is_map()) return;
  read_member(reading, node, "context", [&](Reading& inner, const Node& member) {
    if (const auto value = text(inner, member)) build.context = context_path(inner.context, *value);
  });
  read_dockerfile(reading, node, build);
  read_text(reading, node, "target", build.target);
  read_member(reading, node, "args",
              [&](Reading& inner, const Node& member) { read_arguments(inner, member, build); });
  read_member(reading, node, "network",
              [&](Reading& inner, const Node& member) { read_network(inner, member, build); });
  read_member(reading, node, "ssh",
              [&](Reading& inner, const Node& member) { read_ssh(inner, member, build); });
  read_member(reading, node, "additional_contexts",
              [&](Reading& inner, const Node& member) { read_contexts(inner, member, build); });
  read_member(reading, node, "entitlements", read_entitlements);
  read_member(reading, node, "isolation", read_isolation);
  read_member(reading, node, "secrets", read_build_secrets);
  read_texts(reading, node, "tags", build.tags);
  read_texts(reading, node, "platforms", build.platforms);
  read_texts(reading, node, "cache_from", build.cache_from);
  read_texts(reading, node, "cache_to", build.cache_to);
  read_flag(reading, node, "no_cache", build.no_cache);
  read_texts(reading, node, "no_cache_filter", build.no_cache_filter);
  read_flag(reading, node, "pull", build.pull);
  read_flag(reading, node, "privileged", build.privileged);
  read_borrowed(reading, node, build);
  reading.draft->build = std::move(build);
}

std::map<std::string, BuildSecret> secrets(ReadContext& context, const Node& node) {
  std::map<std::string, BuildSecret> found;
  for (const Node& child : node.children) {
    const Reading reading{context, fmt::format("secrets.{}", child.key)};
    BuildSecret& secret = found[child.key];
    read_member(reading, child, "file", [&](Reading& inner, const Node& member) {
      if (const auto path = text(inner, member)) secret.file = absolute_path(context, *path);
    });
    read_text(reading, child, "environment", secret.variable);
    const bool has_file = child.find("file") != nullptr;
    const bool has_variable = child.find("environment") != nullptr;
    if (has_file && has_variable)
      reading.error(child, "has both 'file' and 'environment'", "remove one of the two");
    if (!has_file && !has_variable)
      reading.error(child, "says nowhere where it is",
                    "name its 'file', or the variable that holds it: 'environment'");
    if (const auto value = context.environment.find(secret.variable);
        value != context.environment.end())
      secret.value = value->second;
  }
  return found;
}

}  // namespace spec::readers
