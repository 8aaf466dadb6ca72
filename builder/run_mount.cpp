#include "builder/run_mount.h"

#include <charconv>
#include <map>
#include <optional>
#include <vector>

#include "base/text.h"
#include "base/units.h"
#include "builder/characters.h"

namespace builder {
namespace {

using base::ErrorCode;
using base::Result;

/// One record of CSV: fields may be quoted as a whole, `""` is a quote in them.
Result<std::vector<std::string>> csv_fields(std::string_view text) {
  std::vector<std::string> fields;
  for (size_t at = 0;;) {
    std::string field;
    if (at < text.size() && text[at] == '"') {
      for (++at;; ++at) {
        if (at >= text.size())
          return base::fail(ErrorCode::InvalidArgument, "a missing closing \" in '{}'", text);
        if (text[at] == '"' && text.substr(at + 1, 1) != "\"") break;
        if (text[at] == '"') ++at;
        field += text[at];
      }
      ++at;
      if (at < text.size() && text[at] != ',')
        return base::fail(ErrorCode::InvalidArgument, "text behind a closing \" in '{}'", text);
    } else {
      const size_t end = std::min(text.find(',', at), text.size());
      field = text.substr(at, end - at);
      at = end;
      if (field.find('"') != std::string::npos)
        return base::fail(ErrorCode::InvalidArgument,
                          "a \" inside of '{}': quote the whole option, as \"{}\"", field,
                          "source=a,b");
    }
    fields.push_back(std::move(field));
    if (at >= text.size()) return fields;
    ++at;
  }
}

struct Option {
  std::string key;
  std::optional<std::string> value;
  std::string text;
};

std::optional<bool> boolean(const std::string& text) {
  for (const char* word : {"1", "t", "T", "true", "TRUE", "True"})
    if (text == word) return true;
  for (const char* word : {"0", "f", "F", "false", "FALSE", "False"})
    if (text == word) return false;
  return std::nullopt;
}

std::optional<uint32_t> number(const std::string& text, int base) {
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string suggestion(std::string_view word, const std::vector<std::string>& candidates) {
  const std::optional<std::string> near = base::did_you_mean(word, candidates);
  return near ? fmt::format("; did you mean {}?", *near) : std::string();
}

const std::vector<std::string>& keys() {
  static const std::vector<std::string> all = {
      "type",     "from", "source",   "src",       "target", "dst", "destination",
      "readonly", "ro",   "rw",       "readwrite", "id",     "env", "mode",
      "uid",      "gid",  "required", "size",      "sharing"};
  return all;
}

const std::map<std::string, RunMountType, std::less<>> mount_types = {
    {"bind", RunMountType::Bind},
    {"cache", RunMountType::Cache},
    {"tmpfs", RunMountType::Tmpfs},
    {"secret", RunMountType::Secret},
    {"ssh", RunMountType::Ssh}};
const std::map<std::string, CacheSharing, std::less<>> sharings = {
    {"shared", CacheSharing::Shared},
    {"private", CacheSharing::Private},
    {"locked", CacheSharing::Locked}};

std::string_view name_of(RunMountType type) {
  for (const auto& [name, value] : mount_types)
    if (value == type) return name;
  return "";
}

/// One mount as its options are read.
class Reader {
 public:
  explicit Reader(std::string_view text) { mount_.text = text; }

  Result<> take_type(const Option& option) {
    const auto found = mount_types.find(to_lower(*option.value));
    if (found == mount_types.end())
      return base::fail(ErrorCode::InvalidArgument,
                        "unsupported mount type '{}'{}: there are bind, cache, tmpfs, secret and "
                        "ssh",
                        *option.value,
                        suggestion(*option.value, {"bind", "cache", "tmpfs", "secret", "ssh"}));
    mount_.type = found->second;
    return {};
  }

  Result<> take(const Option& option) {
    const std::string& key = option.key;
    if (key == "readonly" || key == "ro") {
      read_only_ = TRY(flag(option));
      return {};
    }
    if (key == "readwrite" || key == "rw") {
      read_only_ = !TRY(flag(option));
      return {};
    }
    if (key == "required") {
      TRY(only(option, {RunMountType::Secret, RunMountType::Ssh}));
      mount_.required = TRY(flag(option));
      return {};
    }
    if (!option.value)
      return base::fail(ErrorCode::InvalidArgument, "'{}' must be a key=value pair", option.text);
    return take_value(option);
  }

  /// Defaults, and what cannot go together.
  Result<RunMount> finish() {
    mount_.read_only = read_only_.value_or(mount_.type != RunMountType::Cache &&
                                           mount_.type != RunMountType::Tmpfs);
    if (mount_.type == RunMountType::Secret) TRY(finish_secret());
    if (mount_.type == RunMountType::Ssh) {
      if (mount_.id.empty()) mount_.id = mount_.source.empty() ? "default" : mount_.source;
      if (!mount_.mode) mount_.mode = 0600;
    }
    const bool has_default =
        mount_.type == RunMountType::Secret || mount_.type == RunMountType::Ssh;
    if (!has_default && mount_.target.empty())
      return base::fail(ErrorCode::InvalidArgument, "a mount of type {} needs a 'target'",
                        name_of(mount_.type));
    if (mount_.type == RunMountType::Cache && mount_.from.empty() && !mount_.source.empty())
      return base::fail(ErrorCode::InvalidArgument,
                        "an empty cache has no '{}'; say with 'from' what it begins with, or leave "
                        "out 'source'",
                        mount_.source);
    if (mount_.type == RunMountType::Tmpfs && !(mount_.from + mount_.source).empty())
      return base::fail(ErrorCode::InvalidArgument,
                        "a tmpfs begins empty; it has neither 'from' nor 'source'");
    return std::move(mount_);
  }

 private:
  Result<> only(const Option& option, const std::vector<RunMountType>& types) const {
    for (const RunMountType type : types)
      if (mount_.type == type) return {};
    return base::fail(ErrorCode::InvalidArgument, "'{}' has no meaning for a mount of type {}",
                      option.key, name_of(mount_.type));
  }

  static Result<bool> flag(const Option& option) {
    if (!option.value) return true;
    if (const std::optional<bool> value = boolean(*option.value)) return *value;
    return base::fail(ErrorCode::InvalidArgument, "'{}' is true or false, not '{}'", option.key,
                      *option.value);
  }

  static Result<uint32_t> number_of(const Option& option, int base) {
    if (const std::optional<uint32_t> value = number(*option.value, base)) return *value;
    return base::fail(ErrorCode::InvalidArgument, "'{}' is {} number, not '{}'", option.key,
                      base == 8 ? "an octal" : "a", *option.value);
  }

  Result<> take_value(const Option& option) {
    const std::string& key = option.key;
    const std::string& value = *option.value;
    const std::vector<RunMountType> owned = {RunMountType::Cache, RunMountType::Secret,
                                             RunMountType::Ssh};
    if (key == "from") {
      mount_.from = value;
    } else if (key == "source" || key == "src") {
      mount_.source = value;
    } else if (key == "target" || key == "dst" || key == "destination") {
      mount_.target = value;
    } else if (key == "id") {
      mount_.id = value;
    } else if (key == "env") {
      TRY(only(option, {RunMountType::Secret}));
      mount_.environment = value;
    } else if (key == "mode" || key == "uid" || key == "gid") {
      TRY(only(option, owned));
      std::optional<uint32_t>& place = key == "mode"  ? mount_.mode
                                       : key == "uid" ? mount_.user
                                                      : mount_.group;
      place = TRY(number_of(option, key == "mode" ? 8 : 10));
    } else if (key == "size") {
      TRY(only(option, {RunMountType::Tmpfs}));
      mount_.tmpfs_bytes = TRY(base::parse_bytes(value));
    } else {
      return take_sharing(option);
    }
    return {};
  }

  Result<> take_sharing(const Option& option) {
    TRY(only(option, {RunMountType::Cache}));
    const auto found = sharings.find(to_lower(*option.value));
    if (found == sharings.end())
      return base::fail(ErrorCode::InvalidArgument,
                        "unsupported sharing '{}'{}: there are shared, private and locked",
                        *option.value, suggestion(*option.value, {"shared", "private", "locked"}));
    mount_.sharing = found->second;
    return {};
  }

  Result<> finish_secret() {
    if (!mount_.from.empty())
      return base::fail(ErrorCode::InvalidArgument,
                        "a secret comes from the build's --secret; "
                        "it has no 'from'");
    if (!mount_.source.empty() && !mount_.id.empty())
      return base::fail(ErrorCode::InvalidArgument, "a secret has 'source' or 'id', not both");
    if (mount_.id.empty()) mount_.id = mount_.source;
    const auto last_piece = [](std::string_view path) {
      return std::string(path.substr(path.rfind('/') + 1));
    };
    if (mount_.id.empty()) mount_.id = last_piece(mount_.target);
    if (mount_.id.empty())
      return base::fail(ErrorCode::InvalidArgument, "a secret needs an 'id' or a 'target'");
    mount_.source.clear();
    if (mount_.target.empty() && !mount_.environment)
      mount_.target = "/run/secrets/" + last_piece(mount_.id);
    return {};
  }

  RunMount mount_;
  std::optional<bool> read_only_;
};

Result<Option> option_of(const std::string& field, const ValueOf& value_of) {
  Option option{.text = field};
  const size_t equals = field.find('=');
  option.key = to_lower(field.substr(0, equals));
  const auto& known = keys();
  if (std::find(known.begin(), known.end(), option.key) == known.end())
    return base::fail(ErrorCode::InvalidArgument, "unknown option '{}' in '{}'{}", option.key,
                      field, suggestion(option.key, known));
  if (equals == std::string::npos) return option;
  option.value = field.substr(equals + 1);
  const bool holds_variable = option.value->find('$') != std::string::npos;
  if (option.key == "from" && holds_variable)
    return base::fail(ErrorCode::InvalidArgument,
                      "'from' cannot hold a variable; give the image a stage of its own, "
                      "`FROM {} AS name`, and use its name",
                      *option.value);
  if (value_of) option.value = TRY(value_of(*option.value));
  return option;
}

}  // namespace

Result<RunMount> parse_run_mount(std::string_view text, const ValueOf& value_of) {
  std::vector<Option> options;
  bool deferred = false;
  for (const std::string& field : TRY(csv_fields(text))) {
    Option option = TRY(option_of(field, value_of));
    if (!value_of && option.value && option.value->find('$') != std::string::npos) {
      deferred = true;
      continue;
    }
    options.push_back(std::move(option));
  }
  Reader reader(text);
  // What some options mean depends on the type, wherever it stands.
  bool type_is_known = !deferred;
  for (const Option& option : options) {
    if (option.key != "type") continue;
    if (!option.value)
      return base::fail(ErrorCode::InvalidArgument, "'type' must be a key=value pair");
    TRY(reader.take_type(option));
    type_is_known = true;
  }
  if (!type_is_known) {
    RunMount later;
    later.text = text;
    return later;
  }
  for (const Option& option : options)
    if (option.key != "type") TRY(reader.take(option));
  if (!deferred) return reader.finish();
  Result<RunMount> mount = reader.finish();
  if (mount) return mount;
  RunMount later;  // what is missing may come with the variables
  later.text = text;
  return later;
}

}  // namespace builder
