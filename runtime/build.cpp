#include "runtime/build.h"

#include <algorithm>
#include <atomic>
#include <csignal>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/limits.h"
#include "base/text.h"
#include "runtime/build_relay.h"
#include "runtime/process_config.h"
#include "runtime/process_output.h"

namespace runtime {
namespace {

using base::Deadline;
using base::Error;
using base::ErrorCode;
using base::fail;
using base::Result;
using reconciler::BuildStep;
using reconciler::ByteConsumer;
using reconciler::ByteProducer;
using reconciler::OutputSink;
using reconciler::StepMountKind;

constexpr size_t piece_bytes = 256u << 10;
constexpr int cancel_timeout_ms = 2'000;
constexpr int step_start_timeout_ms = 60'000;  // until its program runs

Deadline call_deadline() { return Deadline::in_ms(base::limits::agent_call_timeout_ms); }

tl::unexpected<Error> cancelled_error() {
  return fail(ErrorCode::Cancelled, "the build was cancelled");
}

guest::StepMountKind kind_of(StepMountKind kind) {
  switch (kind) {
    case StepMountKind::Tree: return guest::StepMountKind::Tree;
    case StepMountKind::Share: return guest::StepMountKind::Share;
    case StepMountKind::Tmpfs: return guest::StepMountKind::Tmpfs;
    case StepMountKind::Secret: return guest::StepMountKind::Secret;
    case StepMountKind::SshAgent: return guest::StepMountKind::Socket;
  }
  return guest::StepMountKind::Tmpfs;
}

Result<guest::StepConfig> step_config(const BuildStep& step) {
  guest::StepConfig config;
  config.id = step.id;
  config.process.arguments = step.arguments;
  config.process.environment = step.environment;
  config.process.working_directory = step.working_dir.empty() ? "/" : step.working_dir;
  config.process.user = step.user;
  config.process.stdin_open = !step.stdin_text.empty();
  config.process.privileged = step.privileged;
  spec::Service service;
  service.privileged = step.privileged;
  config.process.capabilities = TRY(process_capabilities(service));
  config.network = step.network;
  config.hostname = step.hostname;
  config.extra_hosts = step.extra_hosts;
  for (const reconciler::StepMount& mount : step.mounts)
    config.mounts.push_back({.kind = kind_of(mount.kind),
                             .source = mount.source,
                             .source_path = mount.source_path,
                             .target = mount.target,
                             .read_only = mount.read_only,
                             .tmpfs_bytes = mount.tmpfs_bytes,
                             .mode = mount.mode,
                             .user = mount.user,
                             .group = mount.group,
                             .content = mount.secret});
  return config;
}

std::map<size_t, std::string> agent_sockets(const BuildStep& step) {
  std::map<size_t, std::string> sockets;
  for (size_t i = 0; i < step.mounts.size(); ++i)
    if (step.mounts[i].kind == StepMountKind::SshAgent) sockets[i] = step.mounts[i].agent_socket;
  return sockets;
}

class Session final : public reconciler::BuildSession {
 public:
  explicit Session(std::shared_ptr<Vm> vm) : vm_(std::move(vm)) {}

  Result<> add_layer(const std::string& id, const ByteProducer& tar) override {
    return explained(upload("/v1/layers/" + id, tar));
  }
  Result<> add_tree(const std::string& name, const ByteProducer& tar) override {
    return explained(upload("/v1/trees/" + name, tar));
  }
  Result<int32_t> run(const BuildStep& step, const OutputSink& sink) override {
    return explained(run_step(step, sink));
  }
  Result<> take_layer(const std::string& id, const ByteConsumer& tar) override {
    return explained(download("/v1/layers/" + id, tar));
  }

  void cancel() override {
    cancelled_ = true;
    const std::lock_guard lock(mutex_);
    if (stream_) stream_->cancel();
  }

 private:
  /// Opens a stream that cancel() ends.
  Result<std::shared_ptr<AgentStream>> open(const std::string& method, const std::string& path,
                                            bool is_upload) {
    auto stream = TRY(vm_->open(method, path, is_upload));
    const std::lock_guard lock(mutex_);
    if (cancelled_) return cancelled_error();
    stream_ = stream;
    return stream;
  }

  /// A failure told as what it is: the caller gave up, or the machine has died.
  template <class T>
  Result<T> explained(Result<T> result) {
    {
      const std::lock_guard lock(mutex_);
      stream_.reset();
    }
    if (result) return result;
    if (cancelled_) return cancelled_error();
    const bool lost = result.error().code() == ErrorCode::Io;
    if (const auto death = vm_->death(lost))
      return fail(ErrorCode::InvalidState, "the build machine has ended: {}", *death);
    return result;
  }

  Result<> upload(const std::string& path, const ByteProducer& tar) {
    const auto stream = TRY(open("POST", path, true));
    std::string buffer(piece_bytes, '\0');
    for (;;) {
      const Result<size_t> count = tar(buffer.data(), buffer.size());
      if (!count) {
        stream->cancel();
        return tl::unexpected(count.error());
      }
      if (*count == 0) break;
      const Result<> written =
          stream->write(std::string_view(buffer).substr(0, *count), Deadline::never());
      // It takes no more because it has answered already: the answer says why.
      if (!written && written.error().code() == ErrorCode::InvalidState) break;
      TRY(written);
    }
    stream->finish_writing();
    TRY(answer(*stream));
    return {};
  }

  Result<> download(const std::string& path, const ByteConsumer& tar) {
    const auto stream = TRY(open("GET", path, false));
    if (TRY(stream->status(call_deadline())) != 200) return answer(*stream);
    for (;;) {
      const std::string bytes = TRY(stream->read(Deadline::never()));
      if (bytes.empty()) return {};
      if (const Result<> taken = tar(bytes); !taken) {
        stream->cancel();
        return taken;
      }
    }
  }

  /// Unpacking may go on after the last byte was sent, so there is no deadline but the machine's
  /// life and cancel().
  static Result<> answer(AgentStream& stream) {
    const int status = TRY(stream.status(Deadline::never()));
    std::string body;
    for (;;) {
      const std::string more = TRY(stream.read(call_deadline()));
      if (more.empty()) break;
      body += more;
      if (body.size() > base::limits::agent_message_bytes_max) break;
    }
    if (status < 400) return {};
    return tl::unexpected(error_of_reply({.status = status, .body = body}, "a build request"));
  }

  Result<int32_t> run_step(const BuildStep& step, const OutputSink& sink) {
    if (cancelled_) return cancelled_error();
    guest::StepConfig config = TRY(step_config(step));
    config.process.rlimits = vm_->main_process().rlimits;  // the machine's are its steps'
    const std::string process = std::string(guest::step_process_prefix) + step.id;
    vm_->expect_exit(process);
    if (const auto started = vm_->call("POST", "/v1/steps", base::dump_json(guest::to_json(config)),
                                       Deadline::in_ms(step_start_timeout_ms));
        !started) {
      vm_->forget_exit(process);
      return tl::unexpected(started.error());
    }
    std::optional<BuildRelay> relay;
    if (auto sockets = agent_sockets(step); !sockets.empty())
      relay.emplace(vm_, step.id, std::move(sockets));
    return follow(step, process, sink);
  }

  Result<int32_t> follow(const BuildStep& step, const std::string& process,
                         const OutputSink& sink) {
    std::optional<std::thread> feeding;
    if (!step.stdin_text.empty())
      feeding.emplace([this, &step, &process] { feed(process, step.stdin_text); });
    const Result<> copied = copy_process_output(*vm_, process, sink, [&](uint64_t offset) {
      return open("GET", output_path(process, offset), false);
    });
    if (!copied) end(process);
    if (feeding) feeding->join();
    TRY(copied);
    const int32_t code = TRY(vm_->await_exit(process));
    (void)vm_->call("DELETE", "/v1/processes/" + process, "");
    return code;
  }

  /// What the process does not read is of no interest.
  void feed(const std::string& process, const std::string& text) {
    const auto stream = vm_->open("POST", "/v1/processes/" + process + "/stdin", true);
    if (!stream) return;
    if (!(*stream)->write(text, Deadline::never())) return;
    (*stream)->finish_writing();
    (void)(*stream)->status(Deadline::never());
  }

  /// Nothing of a step that was given up is left running.
  void end(const std::string& process) {
    const Deadline deadline = Deadline::in_ms(cancel_timeout_ms);
    if (!vm_->call("POST", "/v1/processes/" + process + "/signal",
                   base::dump_json({{"signal", SIGKILL}}), deadline))
      return vm_->forget_exit(process);
    (void)vm_->await_exit(process, deadline);
    (void)vm_->call("DELETE", "/v1/processes/" + process, "", deadline);
  }

  const std::shared_ptr<Vm> vm_;
  std::atomic<bool> cancelled_ = false;
  std::mutex mutex_;
  std::shared_ptr<AgentStream> stream_;  ///< What cancel() has to end.
};

}  // namespace

Result<std::unique_ptr<reconciler::BuildSession>> start_build(std::shared_ptr<Vm> vm) {
  const std::string text = TRY(vm->call("GET", "/v1/state", ""));
  const guest::AgentState state = TRY(guest::agent_state_from_json(TRY(base::parse_json(text))));
  if (!state.build)
    return fail(ErrorCode::InvalidState, "container '{}' is no build machine", vm->state().id);
  return std::make_unique<Session>(std::move(vm));
}

}  // namespace runtime
