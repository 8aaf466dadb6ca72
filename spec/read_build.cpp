/// Reader of a service's `build` section.

#include <fmt/format.h>

#include "spec/readers.h"

namespace spec::readers {
namespace {

/// What is no path of this machine: `https://…`, `git@…`, `docker-image://…`.
bool is_remote(const std::string& text) {
  return text.find("://") != std::string::npos || text.starts_with("git@");
}

std::string context_path(const ReadContext& context, const std::string& text) {
  return is_remote(text) ? text : absolute_path(context, text);
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
  if (node.is_scalar()) {
    build.ssh = {node.text};
    return;
  }
  for (const Node& child : node.children) {
    std::string entry = node.is_list() ? child.text : child.key;
    if (node.is_map() && child.is_scalar())
      entry += "=" + absolute_path(reading.context, child.text);
    build.ssh.push_back(std::move(entry));
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
  build.shm_bytes = borrowed.service.shm_bytes;
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
  read_member(reading, node, "additional_contexts", [&](Reading& inner, const Node& member) {
    for (const Pair& pair : pairs(inner, member))
      build.additional_contexts[pair.key] = context_path(inner.context, pair.value.value_or(""));
  });
  read_texts(reading, node, "tags", build.tags);
  read_texts(reading, node, "platforms", build.platforms);
  read_texts(reading, node, "cache_from", build.cache_from);
  read_texts(reading, node, "cache_to", build.cache_to);
  read_flag(reading, node, "no_cache", build.no_cache);
  read_flag(reading, node, "pull", build.pull);
  read_flag(reading, node, "privileged", build.privileged);
  read_borrowed(reading, node, build);
  reading.draft->build = std::move(build);
}

}  // namespace spec::readers
