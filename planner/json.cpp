/// JSON forms of the records, the operations and the plan.
///
/// Each struct lists its fields once, in `fields(visit, value)`; a writer and a reader visit the
/// same list, so the two directions cannot drift apart. Plans come from strangers (a saved file, a
/// client), so reading also checks names and the order of steps: the executor relies on both.

#include <algorithm>
#include <array>
#include <limits>
#include <string_view>
#include <type_traits>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/names.h"
#include "base/overloaded.h"
#include "planner/plan.h"
#include "planner/snapshot.h"
#include "spec/json.h"

namespace planner {

namespace {

using base::ErrorCode;
using nlohmann::json;

template <class E>
struct EnumNames;  // one specialisation per enum: `values`, in the order of the enumerators

template <>
struct EnumNames<Wanted> {
  static constexpr std::array<std::string_view, 2> values{"running", "stopped"};
};
template <>
struct EnumNames<Phase> {
  static constexpr std::array<std::string_view, 5> values{"created", "running", "exited", "missing",
                                                          "unknown"};
};
template <>
struct EnumNames<HealthState> {
  static constexpr std::array<std::string_view, 4> values{"none", "starting", "healthy",
                                                          "unhealthy"};
};
template <>
struct EnumNames<spec::Protocol> {
  static constexpr std::array<std::string_view, 2> values{"tcp", "udp"};
};
template <>
struct EnumNames<spec::DependencyCondition> {
  static constexpr std::array<std::string_view, 3> values{"started", "healthy",
                                                          "completed-successfully"};
};
template <>
struct EnumNames<NoteKind> {
  static constexpr std::array<std::string_view, 3> values{"orphan", "drift", "warning"};
};

// The fields of every struct, in the order people read them.

template <class V, class R>
void fields_port(V& visit, R& port) {
  visit("host_ip", port.host_ip);
  visit("published", port.published);
  visit("target", port.target);
  visit("protocol", port.protocol);
}

template <class V, class R>
void fields_place(V& visit, R& place) {
  visit("network", place.network);
  visit("address", place.address);
  visit("gateway", place.gateway);
  visit("mac", place.mac);
}

template <class V, class R>
void fields_container(V& visit, R& record) {
  visit("id", record.id);
  visit("project", record.project);
  visit("service", record.service);
  visit("index", record.index);
  visit("one_off", record.one_off);
  visit("auto_remove", record.auto_remove);
  visit("generation", record.generation);
  visit("applied", record.applied);
  visit("image_digest", record.image_digest);
  visit("wanted", record.wanted);
  visit("working_dir", record.working_dir);
  visit("phase", record.phase);
  visit("health", record.health);
  visit("paused_reason", record.paused_reason);
  visit("exit_code", record.exit_code);
  visit("out_of_memory", record.out_of_memory);
  visit("exit_reason", record.exit_reason);
  visit("restart_count", record.restart_count);
  visit("created_wall_ns", record.created_wall_ns);
  visit("started_wall_ns", record.started_wall_ns);
  visit("finished_wall_ns", record.finished_wall_ns);
  visit("machine_cpus", record.machine_cpus);
  visit("machine_memory_bytes", record.machine_memory_bytes);
  visit("places", record.places);
  visit("published", record.published);
  visit("anonymous_volumes", record.anonymous_volumes);
}

template <class V, class R>
void fields_network(V& visit, R& record) {
  visit("name", record.name);
  visit("project", record.project);
  visit("key", record.key);
  visit("applied", record.applied);
  visit("subnet", record.subnet);
  visit("gateway", record.gateway);
  visit("builtin", record.builtin);
  visit("created_wall_ns", record.created_wall_ns);
  visit("alive", record.alive);
}

template <class V, class R>
void fields_volume(V& visit, R& record) {
  visit("name", record.name);
  visit("project", record.project);
  visit("key", record.key);
  visit("applied", record.applied);
  visit("anonymous", record.anonymous);
  visit("created_wall_ns", record.created_wall_ns);
  visit("present", record.present);
}

// Operations: the kind's name and its fields. A forgotten case does not compile.

template <class T>
struct OperationKind;

#define OPERATION_KIND(Type, text)                 \
  template <>                                      \
  struct OperationKind<Type> {                     \
    static constexpr std::string_view name = text; \
  }
OPERATION_KIND(CreateNetwork, "create-network");
OPERATION_KIND(RemoveNetwork, "remove-network");
OPERATION_KIND(CreateVolume, "create-volume");
OPERATION_KIND(RemoveVolume, "remove-volume");
OPERATION_KIND(CreateContainer, "create-container");
OPERATION_KIND(UpdateContainer, "update-container");
OPERATION_KIND(StartContainer, "start-container");
OPERATION_KIND(StopContainer, "stop-container");
OPERATION_KIND(KillContainer, "kill-container");
OPERATION_KIND(RemoveContainer, "remove-container");
OPERATION_KIND(AwaitContainer, "await-container");
#undef OPERATION_KIND

template <class V, class T>
void fields_operation(V& visit, T& operation) {
  using Plain = std::remove_const_t<T>;
  if constexpr (requires { operation.record; }) visit("record", operation.record);
  if constexpr (requires { operation.name; }) visit("name", operation.name);
  if constexpr (requires { operation.id; }) visit("id", operation.id);
  if constexpr (requires { operation.signal; }) visit("signal", operation.signal);
  if constexpr (requires { operation.grace_ms; }) visit("grace_ms", operation.grace_ms);
  if constexpr (std::is_same_v<Plain, RemoveContainer>)
    visit("anonymous_volumes", operation.anonymous_volumes);
  if constexpr (std::is_same_v<Plain, AwaitContainer>) {
    visit("condition", operation.condition);
    visit("required", operation.required);
    visit("healthy_if_checked", operation.healthy_if_checked);
    visit("timeout_ms", operation.timeout_ms);
  }
}

template <class V, class R>
void fields_change(V& visit, R& change) {
  visit("path", change.path);
  visit("before", change.before);
  visit("after", change.after);
}

template <class V, class R>
void fields_step(V& visit, R& step) {
  visit("id", step.id);
  visit("address", step.address);
  visit("operation", step.operation);
  visit("after", step.after);
  visit("reason", step.reason);
  visit("changes", step.changes);
  visit("replaces", step.replaces);
}

template <class V, class R>
void fields_note(V& visit, R& note) {
  visit("kind", note.kind);
  visit("address", note.address);
  visit("text", note.text);
}

template <class V, class R>
void fields_basis(V& visit, R& basis) {
  visit("address", basis.address);
  visit("state", basis.state);
}

template <class V, class R>
void fields_plan(V& visit, R& plan) {
  visit("format_version", plan.format_version);
  visit("project", plan.project);
  visit("command", plan.command);
  visit("base_serial", plan.base_serial);
  visit("lineage", plan.lineage);
  visit("basis", plan.basis);
  visit("steps", plan.steps);
  visit("notes", plan.notes);
}

// Chooses the list for a type; `void` means that it is no record.
#define FIELDS_OF(Type, list)                   \
  template <class V>                            \
  void fields_of(V& visit, Type& value) {       \
    list(visit, value);                         \
  }                                             \
  template <class V>                            \
  void fields_of(V& visit, const Type& value) { \
    list(visit, value);                         \
  }
FIELDS_OF(PublishedPort, fields_port)
FIELDS_OF(NetworkPlace, fields_place)
FIELDS_OF(ContainerRecord, fields_container)
FIELDS_OF(NetworkRecord, fields_network)
FIELDS_OF(VolumeRecord, fields_volume)
FIELDS_OF(spec::FieldChange, fields_change)
FIELDS_OF(Step, fields_step)
FIELDS_OF(Note, fields_note)
FIELDS_OF(Basis, fields_basis)
FIELDS_OF(Plan, fields_plan)
#undef FIELDS_OF

template <class T>
concept SpecType = std::is_same_v<T, spec::Service> || std::is_same_v<T, spec::Network> ||
    std::is_same_v<T, spec::Volume>;

class Writer {
 public:
  explicit Writer(json& out) : out_(out) {}

  template <class T>
  void operator()(const char* key, const T& value) {
    out_[key] = encode(value);
  }

  template <class T>
  static json encode(const T& value) {
    if constexpr (std::is_enum_v<T>) {
      return EnumNames<T>::values.at(static_cast<size_t>(value));
    } else if constexpr (SpecType<T>) {
      return spec::to_json(value);
    } else if constexpr (std::is_same_v<T, StepId>) {
      return value.value;
    } else if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) {
      return value;
    } else if constexpr (std::is_same_v<T, Operation>) {
      return encode_operation(value);
    } else {
      json object = json::object();
      Writer writer(object);
      fields_of(writer, value);
      return object;
    }
  }

  template <class T>
  static json encode(const std::optional<T>& value) {
    return value ? encode(*value) : json(nullptr);
  }

  template <class T>
  static json encode(const std::vector<T>& values) {
    json list = json::array();
    for (const T& value : values) list.push_back(encode(value));
    return list;
  }

 private:
  static json encode_operation(const Operation& operation) {
    return std::visit(
        [](const auto& op) {
          json object = json::object();
          object["kind"] = OperationKind<std::decay_t<decltype(op)>>::name;
          Writer writer(object);
          fields_operation(writer, op);
          return object;
        },
        operation);
  }

  json& out_;
};

/// Absent and null keep the default; a wrong type is remembered with its path, first one first.
class Reader {
 public:
  Reader(const json& in, std::string path) : in_(in), path_(std::move(path)) {}

  template <class T>
  void operator()(const char* key, T& value) {
    if (error_) return;
    const auto found = in_.find(key);
    if (found == in_.end() || found->is_null()) return;
    decode(*found, path_.empty() ? key : path_ + "." + key, value);
  }

  base::Result<> result() const {
    if (error_) return tl::unexpected<base::Error>(*error_);
    return {};
  }

  template <class T>
  static base::Result<T> read(const json& in) {
    T value;
    Reader reader(in, "");
    reader.decode(in, "", value);
    TRY(reader.result());
    return value;
  }

 private:
  void wrong(const std::string& path, std::string_view expected) {
    if (!error_)
      error_ = base::Error(ErrorCode::InvalidArgument,
                           fmt::format("'{}' must be {}", path.empty() ? "." : path, expected));
  }

  template <class T>
  void take(base::Result<T> result, const std::string& path, T& value) {
    if (result) {
      value = std::move(*result);
    } else if (!error_) {
      error_ = std::move(result.error()).during(path);
    }
  }

  template <class T>
  void decode(const json& in, const std::string& path, T& value) {
    if constexpr (std::is_enum_v<T>) {
      decode_enum(in, path, value);
    } else if constexpr (std::is_same_v<T, spec::Service>) {
      take(spec::service_from_json(in), path, value);
    } else if constexpr (std::is_same_v<T, spec::Network>) {
      take(spec::network_from_json(in), path, value);
    } else if constexpr (std::is_same_v<T, spec::Volume>) {
      take(spec::volume_from_json(in), path, value);
    } else if constexpr (std::is_same_v<T, StepId>) {
      decode(in, path, value.value);
    } else if constexpr (std::is_same_v<T, bool>) {
      in.is_boolean() ? void(value = in.get<bool>()) : wrong(path, "true or false");
    } else if constexpr (std::is_integral_v<T>) {
      decode_integer(in, path, value);
    } else if constexpr (std::is_same_v<T, std::string>) {
      in.is_string() ? void(value = in.get_ref<const std::string&>()) : wrong(path, "a text");
    } else if constexpr (std::is_same_v<T, Operation>) {
      decode_operation(in, path, value);
    } else {
      if (!in.is_object()) return wrong(path, "an object");
      Reader inner(in, path);
      fields_of(inner, value);
      if (inner.error_ && !error_) error_ = std::move(inner.error_);
    }
  }

  template <class T>
  void decode(const json& in, const std::string& path, std::optional<T>& value) {
    T inner{};
    decode(in, path, inner);
    value = std::move(inner);
  }

  template <class T>
  void decode(const json& in, const std::string& path, std::vector<T>& values) {
    if (!in.is_array()) return wrong(path, "a list");
    values.clear();
    for (size_t i = 0; i < in.size() && !error_; ++i) {
      values.emplace_back();
      decode(in[i], fmt::format("{}[{}]", path, i), values.back());
    }
  }

  template <class E>
  void decode_enum(const json& in, const std::string& path, E& value) {
    if (in.is_string()) {
      const auto& names = EnumNames<E>::values;
      const auto found = std::find(names.begin(), names.end(), in.get_ref<const std::string&>());
      if (found != names.end()) {
        value = static_cast<E>(found - names.begin());
        return;
      }
    }
    wrong(path, fmt::format("one of {}", fmt::join(EnumNames<E>::values, ", ")));
  }

  template <class T>
  void decode_integer(const json& in, const std::string& path, T& value) {
    if (in.is_number_unsigned() && std::in_range<T>(in.get<uint64_t>())) {
      value = static_cast<T>(in.get<uint64_t>());
    } else if (in.is_number_integer() && !in.is_number_unsigned() &&
               std::in_range<T>(in.get<int64_t>())) {
      value = static_cast<T>(in.get<int64_t>());
    } else {
      wrong(path, fmt::format("a whole number from {} to {}", std::numeric_limits<T>::min(),
                              std::numeric_limits<T>::max()));
    }
  }

  template <size_t I = 0>
  void decode_operation(const json& in, const std::string& path, Operation& value) {
    if constexpr (I == 0)
      if (!in.is_object()) return wrong(path, "an object");
    if constexpr (I == std::variant_size_v<Operation>) {
      wrong(path + ".kind", "the name of an operation");
    } else {
      using Op = std::variant_alternative_t<I, Operation>;
      if (base::json_string_or(in, "kind", "") != OperationKind<Op>::name)
        return decode_operation<I + 1>(in, path, value);
      Op operation;
      Reader inner(in, path);
      fields_operation(inner, operation);
      if (inner.error_ && !error_) error_ = std::move(inner.error_);
      value = std::move(operation);
    }
  }

  const json& in_;
  std::string path_;
  std::optional<base::Error> error_;
};

base::Result<> check_operation_names(const Operation& operation) {
  return std::visit(
      base::overloaded{
          [](const CreateNetwork& op) { return base::check_name("network", op.record.name); },
          [](const RemoveNetwork& op) { return base::check_name("network", op.name); },
          [](const CreateVolume& op) { return base::check_volume_name(op.record.name); },
          [](const RemoveVolume& op) { return base::check_volume_name(op.name); },
          [](const CreateContainer& op) { return base::check_name("container", op.record.id); },
          [](const UpdateContainer& op) { return base::check_name("container", op.record.id); },
          [](const auto& op) { return base::check_name("container", op.id); },
      },
      operation);
}

/// Ids count from 1 and `after` only points back: the form make_plan gives, and what keeps the
/// executor free of cycles and of wild indices.
base::Result<> check_steps(const Plan& plan) {
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    const Step& step = plan.steps[i];
    if (step.id.value != i + 1)
      return base::fail(ErrorCode::InvalidArgument, "'steps[{}].id' must be {}", i, i + 1);
    for (const StepId& before : step.after)
      if (before.value == 0 || before >= step.id)
        return base::fail(ErrorCode::InvalidArgument,
                          "'steps[{}].after' must name earlier steps, not {}", i, before.value);
    TRY_DURING(check_operation_names(step.operation), "steps[{}]", i);
  }
  return {};
}

}  // namespace

json to_json(const ContainerRecord& record) { return Writer::encode(record); }
json to_json(const NetworkRecord& record) { return Writer::encode(record); }
json to_json(const VolumeRecord& record) { return Writer::encode(record); }
json to_json(const Plan& plan) { return Writer::encode(plan); }

base::Result<ContainerRecord> container_record_from_json(const json& in) {
  ContainerRecord record = TRY(Reader::read<ContainerRecord>(in));
  TRY(base::check_name("container", record.id));
  return record;
}

base::Result<NetworkRecord> network_record_from_json(const json& in) {
  NetworkRecord record = TRY(Reader::read<NetworkRecord>(in));
  TRY(base::check_name("network", record.name));
  return record;
}

base::Result<VolumeRecord> volume_record_from_json(const json& in) {
  VolumeRecord record = TRY(Reader::read<VolumeRecord>(in));
  TRY(base::check_volume_name(record.name));
  return record;
}

base::Result<Plan> plan_from_json(const json& in) {
  Plan plan = TRY(Reader::read<Plan>(in));
  if (plan.format_version != Plan{}.format_version)
    return base::fail(ErrorCode::Unsupported,
                      "this plan has format {}, this program reads format {}; plan again",
                      plan.format_version, Plan{}.format_version);
  TRY(check_steps(plan));
  return plan;
}

}  // namespace planner
