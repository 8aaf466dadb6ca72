#include "api/build_request.h"

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "api/wire.h"
#include "base/base64.h"
#include "base/json.h"
#include "base/text.h"
#include "image/reference.h"

namespace api {
namespace {

using base::ErrorCode;
using base::Result;
using nlohmann::json;

tl::unexpected<base::Error> wrong(const std::string& key, std::string_view wanted) {
  return base::fail(ErrorCode::InvalidArgument, "'{}' must be {}", base::escape_controls(key),
                    wanted);
}

Result<> read(const json& value, const std::string& key, std::string& to) {
  if (!value.is_string()) return wrong(key, "text");
  to = value.get<std::string>();
  return {};
}

Result<> read(const json& value, const std::string& key, bool& to) {
  if (!value.is_boolean()) return wrong(key, "true or false");
  to = value.get<bool>();
  return {};
}

Result<> read(const json& value, const std::string& key, uint64_t& to) {
  if (!value.is_number_unsigned()) return wrong(key, "a whole number");
  to = value.get<uint64_t>();
  return {};
}

Result<> read(const json& value, const std::string& key, int64_t& to) {
  if (!value.is_number_integer()) return wrong(key, "a whole number");
  to = value.get<int64_t>();
  return {};
}

Result<> read(const json& value, const std::string& key, double& to) {
  if (!value.is_number() || !(value.get<double>() > 0)) return wrong(key, "a number above 0");
  to = value.get<double>();
  return {};
}

Result<> read(const json& value, const std::string& key, std::vector<std::string>& to) {
  if (!value.is_array()) return wrong(key, "a list of texts");
  for (const json& one : value) TRY(read(one, key, to.emplace_back()));
  return {};
}

Result<> read(const json& value, const std::string& key, std::map<std::string, std::string>& to) {
  if (!value.is_object()) return wrong(key, "an object of texts");
  for (const auto& [name, text] : value.items()) TRY(read(text, key, to[name]));
  return {};
}

template <class T>
Result<> read(const json& value, const std::string& key, std::optional<T>& to) {
  return read(value, key, to.emplace());
}

/// Takes the members of an object one by one; what is left over is unknown.
class Members {
 public:
  explicit Members(const json& object) : object_(object) {}

  template <class T>
  Result<> take(const std::string& key, T& to) {
    known_.push_back(key);
    const auto found = object_.find(key);
    if (found == object_.end() || found->is_null()) return {};
    return read(*found, key, to);
  }
  const json* take(const std::string& key) {
    known_.push_back(key);
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  Result<> end(std::string_view what) const {
    for (const auto& [key, value] : object_.items())
      if (std::find(known_.begin(), known_.end(), key) == known_.end())
        return base::fail(ErrorCode::InvalidArgument, "{} has no member '{}'", what,
                          base::escape_controls(key));
    return {};
  }

 private:
  const json& object_;
  std::vector<std::string> known_;
};

Result<> read_context(Members& members, BuildOrder& order) {
  const json* context = members.take("context");
  if (context == nullptr) return {};
  if (!context->is_object()) return wrong("context", "an object");
  Members inner(*context);
  TRY(inner.take("folder", order.request.context_folder));
  TRY(inner.take("git", order.request.context_git));
  TRY(inner.take("tar", order.tar_follows));
  TRY(inner.end("the context"));
  const std::string& folder = order.request.context_folder;
  if (!folder.empty() && !folder.starts_with('/')) return wrong("folder", "an absolute path");
  if (!folder.empty() + !order.request.context_git.empty() + order.tar_follows > 1)
    return base::fail(ErrorCode::InvalidArgument, "a build has one context");
  return {};
}

Result<> read_secrets(Members& members, builder::BuildRequest& request) {
  const json* secrets = members.take("secrets");
  if (secrets == nullptr) return {};
  if (!secrets->is_array()) return wrong("secrets", "a list");
  for (const json& one : *secrets) {
    const std::string id = TRY(base::json_string(one, "id"));
    const std::string data = TRY(base::json_string(one, "data"));
    std::string bytes = TRY_DURING(base::decode_base64(data), "secret '{}'", id);
    if (bytes.size() > build_secret_bytes_max)
      return base::fail(ErrorCode::InvalidArgument, "the secret '{}' is larger than {} KiB",
                        base::escape_controls(id), build_secret_bytes_max / 1024);
    builder::Secret secret{.id = id, .bytes = std::move(bytes)};
    for (const auto& [key, to] : {std::pair{"mode", &secret.mode}, std::pair{"uid", &secret.user},
                                  std::pair{"gid", &secret.group}}) {
      const auto value = one.find(key);
      if (value == one.end()) continue;
      if (!value->is_number_unsigned() || value->get<uint64_t>() >= UINT32_MAX)
        return wrong(key, "a whole number");
      *to = value->get<uint32_t>();
    }
    request.secrets.push_back(std::move(secret));
  }
  return {};
}

Result<> read_platforms(Members& members, const std::string& architecture,
                        builder::BuildRequest& request) {
  std::vector<std::string> texts;
  TRY(members.take("platforms", texts));
  request.host = {.os = "linux", .architecture = architecture, .variant = {}};
  for (const std::string& text : texts) {
    const image::Platform platform = TRY(image::parse_platform(text));
    if (std::find(request.platforms.begin(), request.platforms.end(), platform) ==
        request.platforms.end())
      request.platforms.push_back(platform);
  }
  if (request.platforms.empty()) request.platforms = {request.host};
  return {};
}

Result<> read_tags(Members& members, builder::BuildRequest& request) {
  std::vector<std::string> tags;
  TRY(members.take("tags", tags));
  for (const std::string& tag : tags) {
    const image::Reference reference = TRY_DURING(image::parse_reference(tag), "--tag");
    if (!reference.digest.empty())
      return base::fail(ErrorCode::InvalidArgument, "--tag '{}': an image cannot be given a digest",
                        base::escape_controls(tag));
    request.tags.push_back(reference.full());
  }
  return {};
}

Result<> read_output(Members& members, BuildOrder& order) {
  std::string text = "image";
  TRY(members.take("output", text));
  constexpr std::pair<std::string_view, BuildOutput> known[] = {{"image", BuildOutput::Image},
                                                                {"oci", BuildOutput::Oci},
                                                                {"tar", BuildOutput::Tar},
                                                                {"local", BuildOutput::Local}};
  for (const auto& [name, output] : known)
    if (text == name) {
      order.output = output;
      if (output == BuildOutput::Tar || output == BuildOutput::Local)
        if (order.request.platforms.size() > 1)
          return base::fail(ErrorCode::Unsupported,
                            "files of several platforms cannot lie in one place; build them one "
                            "by one, or as an image");
      return {};
    }
  return wrong("output", "image, oci, tar or local");
}

Result<> read_ulimits(Members& members, BuildOrder& order) {
  const json* limits = members.take("ulimits");
  if (limits == nullptr) return {};
  if (!limits->is_object()) return wrong("ulimits", "an object of limits");
  for (const auto& [name, value] : limits->items()) {
    if (!value.is_object()) return wrong("ulimits", "an object of limits");
    spec::Ulimit& limit = order.machine.ulimits[name];
    Members inner(value);
    TRY(inner.take("soft", limit.soft));
    TRY(inner.take("hard", limit.hard));
    TRY(inner.end("a limit"));
    order.request.run_limits.push_back(fmt::format("{}={}:{}", name, limit.soft, limit.hard));
  }
  return {};
}

Result<> read_machine(Members& members, BuildOrder& order) {
  MachineShape& machine = order.machine;
  std::optional<double> cpus;
  std::optional<uint64_t> memory;
  TRY(members.take("cpus", cpus));
  TRY(members.take("memory_bytes", memory));
  order.has_cpus = cpus.has_value();
  order.has_memory = memory.has_value();
  machine.cpus = cpus.value_or(machine.cpus);
  machine.memory_bytes = memory.value_or(machine.memory_bytes);
  TRY(members.take("shm_bytes", machine.shm_bytes));
  TRY(read_ulimits(members, order));
  TRY(members.take("dns", machine.dns));
  TRY(members.take("dns_search", machine.dns_search));
  TRY(members.take("dns_options", machine.dns_options));
  return members.take("dns_domain", machine.dns_domain);
}

Result<> read_caches(Members& members, BuildOrder& order) {
  std::vector<std::string> from;
  std::vector<std::string> to;
  TRY(members.take("cache_from", from));
  TRY(members.take("cache_to", to));
  for (const std::string& text : from)
    order.cache_from.push_back(TRY_DURING(builder::parse_cache_place(text, "src"), "--cache-from"));
  for (const std::string& text : to)
    order.cache_to.push_back(TRY_DURING(builder::parse_cache_place(text, "dest"), "--cache-to"));
  return {};
}

Result<> read_registries(Members& members, BuildOrder& order) {
  std::vector<std::string> made_here;
  TRY(members.take("local_images", made_here));
  order.request.local_images.insert(made_here.begin(), made_here.end());
  TRY(members.take("registry", order.registry));
  const json* access = members.take("access");
  if (access == nullptr) return {};
  if (!access->is_object() && *access != "ask") return wrong("access", "an object, or \"ask\"");
  order.access = *access;
  return {};
}

}  // namespace

Result<BuildOrder> build_order_from_json(const json& object, const std::string& architecture) {
  if (!object.is_object()) return wrong("the request", "an object");
  Members members(object);
  BuildOrder order;
  builder::BuildRequest& request = order.request;
  TRY(read_context(members, order));
  TRY(members.take("dockerfile", request.dockerfile));
  TRY(members.take("dockerfile_path", request.dockerfile_path));
  TRY(members.take("ignore", request.ignore));
  TRY(members.take("contexts", request.named_contexts));
  TRY(members.take("target", request.target));
  TRY(members.take("arguments", request.arguments));
  TRY(members.take("labels", request.labels));
  TRY(members.take("no_cache", request.no_cache));
  TRY(members.take("no_cache_stages", request.no_cache_stages));
  TRY(members.take("pull", request.pull));
  TRY(members.take("ssh", request.ssh));
  TRY(members.take("network", request.network));
  TRY(members.take("privileged", request.privileged));
  TRY(members.take("extra_hosts", request.extra_hosts));
  TRY(members.take("source_date_epoch", request.source_date_epoch));
  TRY(members.take("check", request.check_only));
  TRY(read_registries(members, order));
  TRY(read_secrets(members, request));
  TRY(read_tags(members, request));
  TRY(read_platforms(members, architecture, request));
  TRY(read_output(members, order));
  TRY(read_machine(members, order));
  TRY(read_caches(members, order));
  TRY(members.end("the request"));
  return order;
}

}  // namespace api
