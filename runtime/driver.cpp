#include "runtime/driver.h"

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include <fcntl.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/names.h"
#include "base/text.h"
#include "base/trace.h"
#include "runtime/adopt.h"
#include "runtime/build.h"
#include "runtime/disk/image_disk.h"
#include "runtime/disk/scratch_disk.h"
#include "runtime/emulator.h"
#include "runtime/folders.h"
#include "runtime/process_config.h"
#include "runtime/qemu/probe.h"
#include "runtime/seed/seed.h"
#include "runtime/session.h"
#include "runtime/template/orders.h"
#include "runtime/template/templates.h"
#include "runtime/zygote/zygotes.h"

namespace runtime {
namespace {

using base::Deadline;
using base::ErrorCode;
using base::fail;
using base::Result;
using reconciler::ContainerSetup;
using reconciler::ExitStatus;
using reconciler::MachineSize;
using reconciler::StartRequest;
using reconciler::VmObservation;
using reconciler::VmPhase;

namespace limits = base::limits;

constexpr uint64_t default_memory_bytes = 1ull << 30;
constexpr uint32_t default_cpus_max = 4;

using ContainerPtr = std::shared_ptr<Container>;
using VmPtr = std::shared_ptr<Vm>;

/// What a machine begins as; nothing: it boots.
struct Origin {
  const Template* saved = nullptr;
  Zygote* zygote = nullptr;  ///< Made from `saved`.
};

class Driver final : public RuntimeDriver {
 public:
  Driver(RuntimeOptions options, std::unique_ptr<IoLoop> loop, qemu::Verdict verdict,
         std::unique_ptr<Templates> templates)
      : options_(std::move(options)),
        folders_{options_.app_root, options_.run_root},
        loop_(std::move(loop)),
        verdict_(std::move(verdict)),
        templates_(std::move(templates)),
        seed_({.program = qemu::Plan{}.program,
               .library = options_.programs + "/container-memory.so",
               .system = options_.app_root}),
        zygotes_(*loop_, *templates_,
                 {.run_folder = folders_.zygote_runs(),
                  .empty_disk = folders_.scratch_template(),
                  .guest = {options_.guest},
                  .launcher = options_.programs + "/container-launch",
                  .system = options_.app_root,
                  .seed = &seed_}),
        first_uid_(qemu::first_machine_uid()) {
    if (const Result<> loading = seed_.prepare(); !loading)
      spdlog::warn("{}; machines start slower", loading.error().to_string());
    if (!options_.prepare_template) return;
    want_template(usual_shape());
    zygotes_.want(usual_shape());
  }
  ~Driver() override;

  AcceleratorInfo accelerator() const override {
    const bool kvm = verdict_.accelerator == qemu::Accelerator::Kvm;
    return {.name = kvm ? "kvm" : "tcg", .reason = verdict_.reason};
  }

  Result<> settle(const Deadline& deadline) override {
    TRY(templates_->settle(deadline));
    return zygotes_.settle(deadline);
  }

  MachineSize size_of(const spec::Service& service) const override;
  Result<> create(const ContainerSetup& setup) override;
  Result<> start(const StartRequest& request) override;
  void give_up_disk(const std::string& id) override;
  Result<> begin_stop(const std::string& id, int signal) override;
  Result<ExitStatus> stop(const std::string& id, int signal, int64_t grace_ms) override;
  Result<> kill(const std::string& id, int signal) override;
  Result<> remove(const std::string& id) override;
  Result<std::vector<VmObservation>> list() override;
  Result<VmObservation> observe(const std::string& id) override;
  Result<> adopt(std::function<void(reconciler::VmEvent)> on_event) override;
  Result<std::unique_ptr<reconciler::ProcessSession>> exec(
      const std::string& id, const reconciler::ExecRequest& request) override;
  Result<std::unique_ptr<reconciler::ProcessSession>> attach(const std::string& id,
                                                             bool from_start) override;
  Result<> logs(const std::string& id, const reconciler::LogRequest& request,
                const reconciler::OutputSink& sink) override;
  Result<> update_hosts(const std::string& id, const std::string& hosts,
                        const std::string& resolv_conf) override;
  Result<std::unique_ptr<reconciler::BuildSession>> open_build(const std::string& id) override {
    return start_build(TRY(answering(id)));
  }
  Result<> create_volume(const std::string& name) override;
  Result<> remove_volume(const std::string& name) override;
  Result<std::vector<std::string>> list_volumes() override;
  std::string volume_path(const std::string& name) override { return folders_.volume_data(name); }

 private:
  Result<ContainerPtr> open_container(const std::string& id);
  Result<VmPtr> running(const std::string& id);
  Result<VmPtr> answering(const std::string& id);
  qemu::Shape usual_shape() const;
  qemu::Shape shape_of(const StartRequest& request) const;
  std::optional<uint32_t> free_uid() const;
  void want_template(const qemu::Shape& shape);
  Result<VmPtr> boot(const StartRequest& request, const ContainerPtr& container,
                     const Origin& origin);
  Result<VmPtr> boot_until_ready(const StartRequest& request, const ContainerPtr& container,
                                 const Origin& origin);
  Result<VmPtr> clone_or_boot(const StartRequest& request, const ContainerPtr& container);
  Result<guest::Emulator> emulator_for(const reconciler::ImageRuntimeConfig& image) const;
  Result<> discard(const VmPtr& vm, const base::Error& why);
  Result<base::ProcessIdentity> serve_files(const StartRequest& request, const std::string& folder);
  Result<VmPtr> take_over(qemu::VmState state, qemu::Machine machine,
                          const ContainerPtr& container);
  void adopt_one(const std::string& id);
  void report(const reconciler::VmEvent& event);
  VmObservation observe_stopped(const std::string& id) const;

  const RuntimeOptions options_;
  const Folders folders_;
  const std::unique_ptr<IoLoop> loop_;
  const qemu::Verdict verdict_;
  const std::unique_ptr<Templates> templates_;
  Seed seed_;
  Zygotes zygotes_;
  const std::optional<uint32_t> first_uid_;

  mutable std::mutex mutex_;
  std::map<std::string, ContainerPtr> containers_;
  std::function<void(reconciler::VmEvent)> on_event_;
  std::set<uint32_t> booting_uids_;
};

Driver::~Driver() {
  std::map<std::string, ContainerPtr> containers;
  {
    const std::lock_guard lock(mutex_);
    containers.swap(containers_);
    on_event_ = nullptr;
  }
  for (const auto& [id, container] : containers)
    if (const VmPtr vm = container->vm()) vm->abandon();
}

void Driver::report(const reconciler::VmEvent& event) {
  std::function<void(reconciler::VmEvent)> told;
  {
    const std::lock_guard lock(mutex_);
    told = on_event_;
  }
  if (told) told(event);
}

Result<ContainerPtr> Driver::open_container(const std::string& id) {
  TRY(base::check_name("container", id));
  const std::lock_guard lock(mutex_);
  if (const auto found = containers_.find(id); found != containers_.end()) return found->second;
  if (!base::path_exists(folders_.disk(id)))
    return fail(ErrorCode::NotFound, "container '{}' does not exist", id);
  auto container = std::make_shared<Container>();
  container->id = id;
  container->log = TRY(ContainerLog::open(folders_.logs(id)));
  container->boot_log = std::make_shared<ConsoleLog>(folders_.boot_log(id));
  containers_.emplace(id, container);
  return container;
}

Result<VmPtr> Driver::running(const std::string& id) {
  const ContainerPtr container = TRY(open_container(id));
  VmPtr vm = container->vm();
  if (!vm || vm->ended()) return fail(ErrorCode::InvalidState, "container '{}' is not running", id);
  return vm;
}

/// Running, and not held.
Result<VmPtr> Driver::answering(const std::string& id) {
  VmPtr vm = TRY(running(id));
  if (!vm->can_run())
    return fail(ErrorCode::InvalidState, "container '{}' is paused: {}", id, vm->paused_reason());
  return vm;
}

// ---- making and removing -----------------------------------------------------------------------

Result<> Driver::create(const ContainerSetup& setup) {
  TRY(base::check_name("container", setup.id));
  TRY(base::make_directories(folders_.container(setup.id)));
  TRY_DURING(clone_disk(folders_.scratch_template(), folders_.disk(setup.id)), "make the disk");
  TRY(open_container(setup.id));
  return {};
}

Result<> Driver::remove(const std::string& id) {
  TRY(base::check_name("container", id));
  ContainerPtr container;
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = containers_.find(id); found != containers_.end())
      container = found->second;
  }
  if (container) {
    const VmPtr vm = container->vm();
    if (vm && !vm->ended())
      return fail(ErrorCode::InvalidState, "container '{}' is running; stop it first", id);
    if (vm) {
      vm->cut_short();
      TRY(vm->await_finished());
    }
    container->set_vm(nullptr);
    TRY(container->log->erase());
    const std::lock_guard lock(mutex_);
    containers_.erase(id);
  }
  TRY(base::remove_tree(folders_.vm(id)));
  return base::remove_tree(folders_.container(id));
}

// ---- starting ----------------------------------------------------------------------------------

/// Of a container that asks for nothing, on one network.
qemu::Shape Driver::usual_shape() const {
  const bool kvm = verdict_.accelerator == qemu::Accelerator::Kvm;
  // Emulated processors make each other slower and every boot longer: one, unless asked for more.
  return {.accelerator = verdict_.accelerator,
          .cpus = kvm ? std::clamp(std::thread::hardware_concurrency(), 1u, default_cpus_max) : 1,
          .memory_bytes = qemu::machine_memory_bytes(default_memory_bytes),
          .nics = 1};
}

MachineSize Driver::size_of(const spec::Service& service) const {
  MachineSize size{.cpus = usual_shape().cpus,
                   .memory_bytes = service.memory_bytes.value_or(default_memory_bytes)};
  if (service.cpus) {
    const double whole = std::max(1.0, *service.cpus);
    size.cpus = static_cast<uint32_t>(whole) + (whole > static_cast<uint32_t>(whole) ? 1 : 0);
    size.cpus = std::min(size.cpus, limits::container_cpus_max);
  }
  return size;
}

qemu::Shape Driver::shape_of(const StartRequest& request) const {
  const MachineSize size = size_of(request.setup.service);
  qemu::Shape shape = usual_shape();
  shape.cpus = size.cpus;
  shape.memory_bytes = qemu::machine_memory_bytes(size.memory_bytes);
  shape.nics = static_cast<uint32_t>(request.leases.size());
  return shape;
}

/// Under the driver's mutex.
std::optional<uint32_t> Driver::free_uid() const {
  if (!first_uid_) return std::nullopt;
  std::set<uint32_t> used = booting_uids_;
  for (const auto& [id, container] : containers_)
    if (const VmPtr vm = container->vm()) used.insert(vm->state().uid);
  uint32_t uid = *first_uid_;
  while (used.contains(uid)) ++uid;
  return uid;
}

void Driver::want_template(const qemu::Shape& shape) {
  std::optional<uint32_t> uid;
  if (first_uid_) uid = *first_uid_ + qemu::machine_uids - 1;  // of no container
  templates_->want(shape, uid);
}

Result<VmPtr> Driver::take_over(qemu::VmState state, qemu::Machine machine,
                                const ContainerPtr& container) {
  VmParts parts;
  parts.sockets.folder = folders_.vm(state.id);
  parts.state_path = folders_.vm_state(state.id);
  parts.exit_path = folders_.exit(state.id);
  parts.state = std::move(state);
  parts.epoch = options_.epoch;
  parts.pidfd = std::move(machine.pidfd);
  parts.console = std::move(machine.console);
  parts.orders = std::move(machine.orders);
  parts.process_began_ns = machine.began_ns;
  parts.log = container->log;
  parts.boot_log = container->boot_log;
  parts.report = [this](const reconciler::VmEvent& event) { report(event); };
  return Vm::watch(*loop_, std::move(parts));
}

/// The machine runs, and is being watched; or nothing of it is left.
Result<VmPtr> Driver::boot(const StartRequest& request, const ContainerPtr& container,
                           const Origin& origin) {
  const std::string& id = request.setup.id;
  base::TraceScope preparing(id, "daemon", "start: disk, folder and user of its machine");
  qemu::MachineRequest machine;
  machine.shape = shape_of(request);
  machine.uuid = base::random_uuid();
  machine.guest.folder = options_.guest;
  machine.sockets.folder = folders_.vm(id);
  machine.launcher = options_.programs + "/container-launch";
  machine.system = options_.app_root;
  machine.layers = request.setup.image.layer_disks;
  machine.program = TRY(find_emulator(request.setup.image.architecture, options_.emulators))
                        .value_or(std::string());
  if (origin.saved != nullptr) {
    machine.memory = qemu::Memory::Clone;
    machine.memory_fd = origin.saved->memory.get();
    machine.memory_file = origin.saved->memory_path;
    machine.seed = &seed_;
    machine.zygote = origin.zygote;
  }
  for (const reconciler::NetworkLease& lease : request.leases) {
    if (!lease.tap)
      return fail(ErrorCode::Internal, "network '{}' gave no device for '{}'", lease.network, id);
    machine.taps.push_back(lease.tap->get());
  }
  const base::UniqueFd scratch = TRY(base::open_file(folders_.disk(id), O_RDWR));
  machine.scratch = scratch.get();
  TRY(base::remove_tree(machine.sockets.folder));
  TRY(base::make_directories(machine.sockets.folder));
  {
    const std::lock_guard lock(mutex_);
    machine.uid = free_uid();
    if (machine.uid) booting_uids_.insert(*machine.uid);
  }
  qemu::VmState state;
  state.id = id;
  state.generation = request.setup.generation;
  state.uuid = machine.uuid;
  state.uid = machine.uid.value_or(0);
  // Before QEMU exists: a daemon that dies in between finds it by its uuid and ends it.
  TRY(qemu::save(folders_.vm_state(id), state));
  container->boot_log->restart();
  if (origin.saved != nullptr) container->boot_log->append(origin.saved->console_text);
  preparing.close();
  base::TraceScope spawning(id, "daemon", "start: QEMU's process");
  qemu::Machine started = TRY(qemu::start_machine(machine));
  spawning.close();
  base::TraceScope watching(id, "daemon", "start: orders to QEMU, and somebody to watch it");
  if (origin.zygote != nullptr) {
    started.orders = TRY(order_continue(machine.sockets.monitor()));
  } else if (origin.saved != nullptr) {
    // A description of its own: clones read it side by side, each from its beginning.
    const base::UniqueFd from = TRY(base::open_file(origin.saved->state_path, O_RDONLY));
    started.orders = TRY(order_resume(machine.sockets.monitor(), from.get()));
  }
  state.process = started.process;
  TRY(qemu::save(folders_.vm_state(id), state));
  return take_over(std::move(state), std::move(started), container);
}

/// Nothing of it is left afterwards; `why` comes back.
Result<> Driver::discard(const VmPtr& vm, const base::Error& why) {
  vm->destroy();
  (void)base::remove_tree(folders_.vm(vm->state().id));
  const std::lock_guard lock(mutex_);
  booting_uids_.erase(vm->state().uid);
  return tl::unexpected(why);
}

/// Its agent answers; or nothing of it is left.
Result<VmPtr> Driver::boot_until_ready(const StartRequest& request, const ContainerPtr& container,
                                       const Origin& origin) {
  const std::string folder = folders_.vm(request.setup.id);
  Result<VmPtr> booted = boot(request, container, origin);
  if (!booted) {
    (void)base::remove_tree(folder);
    return booted;
  }
  const VmPtr& vm = *booted;
  if (request.setup.shares.empty()) vm->set_alone();
  if (!request.setup.keep_disk) vm->give_up_disk();
  if (!request.setup.shares.empty()) {
    const Result<base::ProcessIdentity> served = serve_files(request, folder);
    if (!served) TRY(discard(vm, served.error()));
    vm->set_file_server(*served);
  }
  const int patience_ms =
      origin.saved != nullptr ? limits::vm_clone_timeout_ms : limits::vm_boot_timeout_ms;
  if (const Result<> up = vm->await_agent(Deadline::in_ms(patience_ms)); !up)
    TRY(discard(vm, up.error()));
  return booted;
}

/// What gives no clone is no reason for a container not to start. It is to blame where the next way
/// leads to one.
Result<VmPtr> Driver::clone_or_boot(const StartRequest& request, const ContainerPtr& container) {
  const qemu::Shape shape = shape_of(request);
  const bool may_clone = request.setup.service.boot == spec::BootMode::Clone;
  const auto origin = may_clone ? templates_->find(shape) : nullptr;
  std::string zygote_failed, template_failed;
  if (const auto zygote = origin ? zygotes_.find(shape) : nullptr) {
    Result<VmPtr> forked = boot_until_ready(request, container, {origin.get(), zygote.get()});
    if (forked) return forked;
    zygote_failed = forked.error().to_string();
  }
  Result<VmPtr> started = fail(ErrorCode::NotFound, "no template");
  if (origin) {
    started = boot_until_ready(request, container, {origin.get(), nullptr});
    if (!started) template_failed = started.error().to_string();
  }
  if (!started) started = boot_until_ready(request, container, {});
  if (!started) return started;
  if (!zygote_failed.empty()) zygotes_.drop(shape, zygote_failed);
  if (!template_failed.empty()) templates_->drop(shape, template_failed);
  if (may_clone && (!origin || !template_failed.empty()))
    want_template(shape);
  else if (origin)
    zygotes_.want(shape);
  return started;
}

/// It is the partition behind the image's layers.
Result<guest::Emulator> Driver::emulator_for(const reconciler::ImageRuntimeConfig& image) const {
  guest::Emulator emulator;
  const auto program = TRY(find_emulator(image.architecture, options_.emulators));
  if (!program) return emulator;
  emulator.architecture = image.architecture;
  emulator.partition = static_cast<uint32_t>(image.layer_disks.size()) + 2;
  std::error_code error;
  emulator.bytes = std::filesystem::file_size(*program, error);
  if (error) return fail(ErrorCode::Io, "look at '{}': {}", *program, error.message());
  return emulator;
}

Result<> Driver::start(const StartRequest& request) {
  const std::string& id = request.setup.id;
  const ContainerPtr container = TRY(open_container(id));
  if (const VmPtr vm = container->vm()) {
    if (!vm->ended()) return {};
    (void)vm->can_run();  // If there is room by now, it has the rest written.
    TRY(vm->await_finished());
  }
  guest::ContainerConfig config = TRY(container_config(request));
  config.emulator = TRY_DURING(emulator_for(request.setup.image), "start container '{}'", id);
  (void)::unlink(folders_.exit(id).c_str());
  const VmPtr vm = TRY_DURING(clone_or_boot(request, container), "start container '{}'", id);
  if (const Result<> set = vm->configure(config); !set)
    TRY_DURING(discard(vm, set.error()), "start container '{}'", id);
  container->set_vm(vm);
  {
    const std::lock_guard lock(mutex_);
    booting_uids_.erase(vm->state().uid);
  }
  vm->keep();
  return {};
}

/// One file server for the machine, which lives as long as the machine holds its end.
Result<base::ProcessIdentity> Driver::serve_files(const StartRequest& request,
                                                  const std::string& folder) {
  nlohmann::json shares = nlohmann::json::array();
  for (size_t i = 0; i < request.setup.shares.size(); ++i) {
    const reconciler::ShareSource& share = request.setup.shares[i];
    shares.push_back({{"name", fmt::format("share{}", i)},
                      {"path", share.host_path},
                      {"read_only", share.read_only}});
  }
  const base::UniqueFd config = TRY(read_only_memory_file(
      "container-shares",
      base::dump_json({{"shares", shares}, {"mapped_ownership", ::geteuid() != 0}})));
  const base::UniqueFd socket = TRY(base::connect_unix(qemu::Sockets{folder}.files()));
  const base::UniqueFd log =
      TRY(base::open_file(folder + "/files.log", O_WRONLY | O_CREAT | O_APPEND));
  return base::spawn({.arguments = {options_.programs + "/container-files", "--socket-fd", "3",
                                    "--config-fd", "4"},
                      .environment = {"LC_ALL=C", "CONTAINER_APP_ROOT=" + options_.app_root},
                      .descriptors = {{socket.get(), 3}, {config.get(), 4}, {log.get(), 2}}});
}

// ---- stopping ----------------------------------------------------------------------------------

Result<ExitStatus> Driver::stop(const std::string& id, int signal, int64_t grace_ms) {
  TRY(base::check_name("container", id));
  ContainerPtr container;
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = containers_.find(id); found != containers_.end())
      container = found->second;
  }
  if (container)
    if (const VmPtr vm = container->vm()) return vm->stop(signal, grace_ms);
  if (container) container->log->end_run({.exit_code = {}, .error = "the container was stopped"});
  const auto stored = qemu::load_exit(folders_.exit(id));
  return stored ? stored->exit : ExitStatus{};
}

void Driver::give_up_disk(const std::string& id) {
  const Result<VmPtr> vm = running(id);
  if (vm) (*vm)->give_up_disk();
}

Result<> Driver::begin_stop(const std::string& id, int signal) {
  return TRY(running(id))->begin_stop(signal);
}

Result<> Driver::kill(const std::string& id, int signal) {
  return TRY(running(id))->signal(std::string(guest::main_process_id), signal);
}

// ---- looking -----------------------------------------------------------------------------------

VmObservation Driver::observe_stopped(const std::string& id) const {
  VmObservation seen;
  seen.id = id;
  seen.disk_present = base::path_exists(folders_.disk(id));
  if (const auto stored = qemu::load_exit(folders_.exit(id))) {
    seen.phase = VmPhase::Exited;
    seen.generation = stored->generation;
    seen.started_wall_ns = stored->started_wall_ns;
    seen.exit = stored->exit;
  }
  return seen;
}

Result<std::vector<VmObservation>> Driver::list() {
  std::set<std::string> ids = folder_names(folders_.containers());
  std::map<std::string, VmPtr> machines;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, container] : containers_)
      if (VmPtr vm = container->vm()) machines.emplace(id, std::move(vm));
  }
  for (const auto& [id, vm] : machines) ids.insert(id);
  std::vector<VmObservation> seen(ids.size());
  std::vector<std::thread> asking;  // side by side: one silent guest must not hide the others
  size_t next = 0;
  for (const std::string& id : ids) {
    VmObservation& place = seen[next++];
    const auto found = machines.find(id);
    if (found == machines.end()) {
      place = observe_stopped(id);
      continue;
    }
    asking.emplace_back([&place, &folders = folders_, id, vm = found->second] {
      place = vm->observe();
      place.disk_present = base::path_exists(folders.disk(id));
    });
  }
  for (std::thread& one : asking) one.join();
  return seen;
}

Result<VmObservation> Driver::observe(const std::string& id) {
  TRY(base::check_name("container", id));
  ContainerPtr container;
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = containers_.find(id); found != containers_.end())
      container = found->second;
  }
  const VmPtr vm = container ? container->vm() : nullptr;
  if (!vm) return observe_stopped(id);
  VmObservation seen = vm->observe();
  seen.disk_present = base::path_exists(folders_.disk(id));
  return seen;
}

Result<> Driver::adopt(std::function<void(reconciler::VmEvent)> on_event) {
  {
    const std::lock_guard lock(mutex_);
    on_event_ = std::move(on_event);
  }
  std::vector<std::thread> adopting;
  for (const std::string& id : folder_names(folders_.vms()))
    adopting.emplace_back([this, id] { adopt_one(id); });
  for (std::thread& one : adopting) one.join();
  return {};
}

void Driver::adopt_one(const std::string& id) {
  Result<Found> found = find_machine(folders_, id);
  if (!found) {
    spdlog::info("the virtual machine of '{}' is gone: {}", id, found.error().to_string());
    return;
  }
  const Result<ContainerPtr> container = open_container(id);
  if (!container) {
    spdlog::warn("a virtual machine without a container, '{}', is ended", id);
    (void)base::signal_process(found->machine.pidfd.get(), SIGKILL);
    (void)base::remove_tree(folders_.vm(id));
    return;
  }
  const Result<VmPtr> vm =
      take_over(std::move(found->state), std::move(found->machine), *container);
  if (!vm) {
    spdlog::warn("cannot take over '{}': {}", id, vm.error().to_string());
    return;
  }
  (*container)->set_vm(*vm);
  (*vm)->keep();
}

// ---- talking -----------------------------------------------------------------------------------

Result<std::unique_ptr<reconciler::ProcessSession>> Driver::exec(
    const std::string& id, const reconciler::ExecRequest& request) {
  return start_exec(TRY(answering(id)), request);
}

Result<std::unique_ptr<reconciler::ProcessSession>> Driver::attach(const std::string& id,
                                                                   bool from_start) {
  return start_attach(TRY(open_container(id)), from_start);
}

Result<> Driver::logs(const std::string& id, const reconciler::LogRequest& request,
                      const reconciler::OutputSink& sink) {
  const ContainerPtr container = TRY(open_container(id));
  if (request.boot)
    return container->boot_log->read(request.follow, request.cancelled,
                                     [&](std::string_view bytes) { return sink(1, bytes); });
  uint64_t first = 0;
  if (request.last_lines) {
    const auto counting = container->log->read(LogStart::Oldest, LogReaderKind::Follower);
    const uint64_t lines = TRY(count_lines(*counting, request.cancelled));
    first = lines > *request.last_lines ? lines - *request.last_lines : 0;
  }
  const auto reader = container->log->read(LogStart::Oldest, LogReaderKind::Follower);
  LineFilter filter(first);
  const auto copy = [&](LogReader::Wait wait) -> Result<bool> {
    for (;;) {
      const auto chunk = TRY(reader->next(wait, request.cancelled));
      if (!chunk) return true;
      if (!filter.pass(*chunk, sink)) return false;
    }
  };
  if (TRY(copy(LogReader::Wait::Never)) && request.follow && container->log->run_goes_on())
    TRY(copy(LogReader::Wait::ForRunEnd));
  return {};
}

Result<> Driver::update_hosts(const std::string& id, const std::string& hosts,
                              const std::string& resolv_conf) {
  TRY(TRY(answering(id))
          ->call("POST", "/v1/hosts",
                 base::dump_json({{"hosts", hosts}, {"resolv_conf", resolv_conf}})));
  return {};
}

// ---- volumes -----------------------------------------------------------------------------------

Result<> Driver::create_volume(const std::string& name) {
  TRY(base::check_volume_name(name));
  return base::make_directories(folders_.volume_data(name));
}

Result<> Driver::remove_volume(const std::string& name) {
  TRY(base::check_volume_name(name));
  return base::remove_tree(folders_.volume(name));
}

Result<std::vector<std::string>> Driver::list_volumes() {
  const std::set<std::string> names = folder_names(folders_.volumes());
  return std::vector<std::string>(names.begin(), names.end());
}

}  // namespace

namespace {

Result<qemu::Verdict> choose_accelerator(IoLoop& loop, const RuntimeOptions& options) {
  if (options.accelerator == "kvm")
    return qemu::Verdict{.accelerator = qemu::Accelerator::Kvm, .reason = "chosen, not tried"};
  if (options.accelerator == "tcg")
    return qemu::Verdict{.accelerator = qemu::Accelerator::Tcg, .reason = "chosen"};
  if (!options.accelerator.empty())
    return fail(ErrorCode::InvalidArgument, "there is no accelerator '{}', only kvm and tcg",
                base::escape_controls(options.accelerator));
  return qemu::probe_accelerator(loop, {.guest = {options.guest},
                                        .launcher = options.programs + "/container-launch",
                                        .run_folder = options.run_root + "/probe",
                                        .cache = options.app_root + "/accelerator.json"});
}

}  // namespace

Result<std::unique_ptr<RuntimeDriver>> RuntimeDriver::open(RuntimeOptions options) {
  const Folders folders{options.app_root, options.run_root};
  for (const std::string& folder :
       {folders.containers(), folders.volumes(), folders.vms(), folders.templates()})
    TRY(base::make_directories(folder));
  for (const std::string& file : {options.guest + "/vmlinux", options.guest + "/initramfs.img",
                                  options.guest + "/modules.erofs"})
    if (!base::path_exists(file))
      return fail(ErrorCode::NotFound,
                  "the guest's '{}' is missing; build it with ./dev build, or install it", file);
  if (!base::path_exists(folders.scratch_template()))
    TRY_DURING(make_scratch_template(folders.scratch_template(), scratch_disk_bytes),
               "make the template of container disks");
  std::unique_ptr<IoLoop> loop = TRY(IoLoop::create());
  qemu::Verdict verdict = TRY(choose_accelerator(*loop, options));
  std::unique_ptr<Templates> templates =
      TRY(Templates::open(*loop, {.folder = folders.vm_templates(),
                                  .run_folder = folders.template_runs(),
                                  .guest = {options.guest},
                                  .launcher = options.programs + "/container-launch",
                                  .system = options.app_root}));
  return std::make_unique<Driver>(std::move(options), std::move(loop), std::move(verdict),
                                  std::move(templates));
}

}  // namespace runtime
