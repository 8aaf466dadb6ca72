/// Making a container, starting it and being attached to it, in one request.

#include <chrono>
#include <condition_variable>
#include <optional>
#include <utility>

#include "api/service.h"
#include "base/limits.h"

namespace api {
namespace {

using base::ErrorCode;
using base::fail;
using base::Result;
using reconciler::OutputSink;
using reconciler::ProcessSession;

/// The main process of a container that a plan is about to make. Its session begins between the
/// making and the start, so that nothing it writes is missed.
class LateSession final : public ProcessSession {
 public:
  LateSession(reconciler::RuntimePort& runtime, std::string id, std::function<void()> give_up)
      : runtime_(runtime), id_(std::move(id)), give_up_(std::move(give_up)) {}

  /// After each step of the plan, on the loop, before the next begins.
  void on_step_done() {
    const std::lock_guard lock(mutex_);
    if (session_ || cancelled_) return;
    if (auto attached = runtime_.attach(id_, true)) session_ = std::move(*attached);
    changed_.notify_all();
  }
  void on_outcome(const Result<>& outcome) {
    const std::lock_guard lock(mutex_);
    outcome_ = outcome;
    changed_.notify_all();
  }
  /// The outcome of the plan; nullopt if the process ended first.
  std::optional<Result<>> await_outcome() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return outcome_ || over_; });
    return outcome_;
  }

  Result<int32_t> run(const OutputSink& sink) override {
    Result<int32_t> code = run_once_there(sink);
    std::unique_lock lock(mutex_);
    // Why there was no process the plan knows best.
    if (!code && code.error().code() != ErrorCode::Cancelled)
      changed_.wait_for(lock, std::chrono::milliseconds(base::limits::cli_last_word_timeout_ms),
                        [this] { return outcome_ || cancelled_; });
    if (!code && outcome_ && !*outcome_) code = tl::unexpected(outcome_->error());
    over_ = true;
    changed_.notify_all();
    return code;
  }
  Result<> write_stdin(std::string_view bytes) override { return TRY(there())->write_stdin(bytes); }
  Result<> close_stdin() override { return TRY(there())->close_stdin(); }
  Result<> signal(int number) override { return TRY(there())->signal(number); }
  Result<> resize(uint16_t rows, uint16_t columns) override {
    return TRY(there())->resize(rows, columns);
  }

  void cancel() override {
    bool unfinished = false;
    {
      const std::lock_guard lock(mutex_);
      cancelled_ = true;
      unfinished = !outcome_ && !over_;
      if (session_) session_->cancel();
      changed_.notify_all();
    }
    // Whoever hangs up does not want what has not begun.
    if (unfinished) give_up_();
  }

 private:
  Result<ProcessSession*> there() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return session_ || outcome_ || cancelled_ || over_; });
    if (cancelled_) return fail(ErrorCode::Cancelled, "whoever asked has hung up");
    if (session_) return session_.get();
    return fail(ErrorCode::InvalidState, "container '{}' did not start", id_);
  }

  Result<int32_t> run_once_there(const OutputSink& sink) {
    ProcessSession* session = TRY(there());
    return session->run(sink);
  }

  reconciler::RuntimePort& runtime_;
  const std::string id_;
  const std::function<void()> give_up_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::unique_ptr<ProcessSession> session_;
  std::optional<Result<>> outcome_;
  bool cancelled_ = false;
  bool over_ = false;
};

}  // namespace

Service::Reply Service::run_attached(Job job, const std::string& id) {
  const auto session = std::make_shared<LateSession>(ports_.runtime, id, [this, owner = job.owner] {
    ports_.workers.post([this, owner] { reconciler_.cancel(owner); });
  });
  const auto request = std::make_shared<reconciler::ApplyRequest>();
  request->owner = job.owner;
  request->wait_for_lock = job.wait_for_lock;
  request->replan = std::move(job.replan);
  request->plan = std::move(job.plan);
  request->progress = [session](const reconciler::Progress& progress) {
    if (progress.kind == reconciler::Progress::Kind::StepDone) session->on_step_done();
  };
  request->finished = [session](const Result<>& result) { session->on_outcome(result); };
  HttpReply reply;
  reply.upgrade = [this, session, request, id](int socket, std::string first_bytes) {
    ports_.workers.post([this, request] { reconciler_.apply(std::move(*request)); });
    const Attachment attachment{attached_, id};
    serve_process(socket, std::move(first_bytes), *session, attachment, [&](const FrameSink& send) {
      const auto outcome = session->await_outcome();
      if (outcome && *outcome) send(FrameKind::Started, "{}");
    });
  };
  return reply;
}

}  // namespace api
