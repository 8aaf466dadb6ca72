#include "runtime/session.h"

#include <atomic>
#include <chrono>
#include <csignal>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/text.h"
#include "runtime/process_config.h"
#include "runtime/process_output.h"

namespace runtime {
namespace {

using base::Deadline;
using base::ErrorCode;
using base::fail;
using base::Result;
using reconciler::OutputSink;

constexpr auto cancel_check = std::chrono::milliseconds(200);

tl::unexpected<base::Error> cancelled() { return fail(ErrorCode::Cancelled, "cancelled"); }

/// The upload that feeds one process's stdin; opened when the first byte comes.
class StdinStream {
 public:
  Result<> write(Vm& vm, const std::string& process, std::string_view bytes) {
    const auto stream = TRY(get(vm, process));
    return stream->write(bytes, Deadline::never());
  }
  Result<> finish(Vm& vm, const std::string& process) {
    TRY(get(vm, process))->finish_writing();
    return {};
  }
  void cancel() {
    const std::lock_guard lock(mutex_);
    if (stream_) stream_->cancel();
  }

 private:
  Result<std::shared_ptr<AgentStream>> get(Vm& vm, const std::string& process) {
    const std::lock_guard lock(mutex_);
    if (!stream_) stream_ = TRY(vm.open("POST", "/v1/processes/" + process + "/stdin", true));
    return stream_;
  }
  std::mutex mutex_;
  std::shared_ptr<AgentStream> stream_;
};

Result<> resize_process(Vm& vm, const std::string& process, uint16_t rows, uint16_t columns) {
  TRY(vm.call("POST", "/v1/processes/" + process + "/resize",
              base::dump_json({{"rows", rows}, {"columns", columns}})));
  return {};
}

class ExecSession final : public reconciler::ProcessSession {
 public:
  ExecSession(std::shared_ptr<Vm> vm, std::string process)
      : vm_(std::move(vm)), process_(std::move(process)) {}

  /// One that still runs goes on without us, its output unread (`exec -d`).
  ~ExecSession() override {
    vm_->forget_exit(process_);
    (void)vm_->call("DELETE", "/v1/processes/" + process_, "");
  }

  Result<int32_t> run(const OutputSink& sink) override {
    TRY(copy_process_output(*vm_, process_, sink,
                            [this](uint64_t offset) { return open_output(offset); }));
    return vm_->await_exit(process_);
  }

  Result<> write_stdin(std::string_view bytes) override {
    return stdin_.write(*vm_, process_, bytes);
  }
  Result<> close_stdin() override { return stdin_.finish(*vm_, process_); }
  Result<> signal(int number) override { return vm_->signal(process_, number); }
  Result<> resize(uint16_t rows, uint16_t columns) override {
    return resize_process(*vm_, process_, rows, columns);
  }
  void cancel() override {
    cancelled_ = true;
    stdin_.cancel();
    const std::lock_guard lock(mutex_);
    if (output_) output_->cancel();
  }

 private:
  Result<std::shared_ptr<AgentStream>> open_output(uint64_t offset) {
    auto stream = TRY(vm_->open("GET", output_path(process_, offset), false));
    const std::lock_guard lock(mutex_);
    output_ = stream;
    if (cancelled_) return cancelled();
    return stream;
  }

  const std::shared_ptr<Vm> vm_;
  const std::string process_;
  StdinStream stdin_;
  std::atomic<bool> cancelled_ = false;
  std::mutex mutex_;
  std::shared_ptr<AgentStream> output_;
};

class AttachSession final : public reconciler::ProcessSession {
 public:
  AttachSession(std::shared_ptr<Container> container, bool from_start)
      : container_(std::move(container)),
        reader_(container_->log->read(from_start ? LogStart::Run : LogStart::Now,
                                      LogReaderKind::Attached)) {}

  Result<int32_t> run(const OutputSink& sink) override {
    for (;;) {
      const auto chunk =
          TRY(reader_->next(LogReader::Wait::ForRunEnd, [this] { return cancelled_.load(); }));
      if (!chunk) break;
      if (!sink(chunk->stream, chunk->bytes)) return cancelled();
    }
    const RunEnd end = reader_->end();
    if (end.exit_code) return *end.exit_code;
    return fail(ErrorCode::InvalidState, "{}",
                end.error.empty() ? "the container did not start" : end.error);
  }

  Result<> write_stdin(std::string_view bytes) override {
    return stdin_.write(*TRY(started()), main_, bytes);
  }
  Result<> close_stdin() override { return stdin_.finish(*TRY(started()), main_); }
  Result<> signal(int number) override { return TRY(started())->signal(main_, number); }
  Result<> resize(uint16_t rows, uint16_t columns) override {
    return resize_process(*TRY(started()), main_, rows, columns);
  }
  void cancel() override {
    cancelled_ = true;
    stdin_.cancel();
  }

 private:
  /// Somebody may attach, and type, before the container is started.
  Result<std::shared_ptr<Vm>> started() {
    std::unique_lock lock(container_->mutex);
    while (!container_->machine) {
      if (cancelled_) return cancelled();
      container_->changed.wait_for(lock, cancel_check);
    }
    if (container_->machine->ended())
      return fail(ErrorCode::InvalidState, "container '{}' has ended", container_->id);
    return container_->machine;
  }

  const std::shared_ptr<Container> container_;
  const std::unique_ptr<LogReader> reader_;
  const std::string main_{guest::main_process_id};
  StdinStream stdin_;
  std::atomic<bool> cancelled_ = false;
};

}  // namespace

Result<std::unique_ptr<reconciler::ProcessSession>> start_exec(
    std::shared_ptr<Vm> vm, const reconciler::ExecRequest& request) {
  guest::ExecConfig config;
  config.id = "exec-" + base::random_hex(8);
  config.process = exec_process_config(vm->main_process(), request);
  vm->expect_exit(config.id);
  TRY(vm->call("POST", "/v1/processes", base::dump_json(guest::to_json(config))));
  return std::make_unique<ExecSession>(std::move(vm), config.id);
}

std::unique_ptr<reconciler::ProcessSession> start_attach(std::shared_ptr<Container> container,
                                                         bool from_start) {
  return std::make_unique<AttachSession>(std::move(container), from_start);
}

}  // namespace runtime
