#include "guest/agent/build/worker.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include <nlohmann/json.hpp>

#include "base/json.h"

namespace agent {

using base::Error;
using base::ErrorCode;
using base::fail;
using base::fail_errno;
using base::Result;

namespace {

constexpr int pipe_bytes = 1 << 20;
constexpr size_t report_bytes_max = 4096;  // a pipe takes so much at once

[[noreturn]] void work_in_child(const std::function<Result<>(int)>& work, int pipe, int report) {
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::prctl(PR_SET_NAME, "build-files", 0, 0, 0);
  ::umask(0);
  // Low numbers for the two we need, nothing else stays open.
  const int high_pipe = ::fcntl(pipe, F_DUPFD, 1000);
  const int high_report = ::fcntl(report, F_DUPFD, 1000);
  ::dup2(high_pipe, 3);
  ::dup2(high_report, 4);
  ::syscall(SYS_close_range, 5u, ~0u, 0u);
  const Result<> done = work(3);
  if (done) ::_exit(0);
  const std::string text =
      base::dump_json({{"code", base::error_code_name(done.error().code())},
                       {"message", done.error().to_string().substr(0, report_bytes_max / 2)}});
  (void)!::write(4, text.data(), std::min(text.size(), report_bytes_max));
  ::_exit(1);
}

Result<> reported(int report, int wait_status) {
  if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0) return {};
  std::string text(report_bytes_max, '\0');
  const ssize_t count = ::read(report, text.data(), text.size());
  const auto message = base::parse_json(
      std::string_view(text).substr(0, count > 0 ? static_cast<size_t>(count) : 0));
  if (message && message->is_object())
    return tl::unexpected<Error>(
        Error(base::error_code_from_name(base::json_string_or(*message, "code", "internal")),
              base::json_string_or(*message, "message", "")));
  if (WIFSIGNALED(wait_status))
    return fail(ErrorCode::Io,
                "the process that handles the files was ended by signal {}; the machine may have "
                "too little memory",
                WTERMSIG(wait_status));
  return fail(ErrorCode::Internal, "the process that handles the files gave no reason");
}

}  // namespace

Result<std::shared_ptr<Worker>> Worker::start(Loop& loop, PipeWay way,
                                              std::function<Result<>(int pipe)> work,
                                              std::function<void(Result<>)> done) {
  base::Pipe data = TRY(base::make_pipe());
  base::Pipe report = TRY(base::make_pipe());
  const bool to_worker = way == PipeWay::ToWorker;
  std::shared_ptr<Worker> worker(new Worker(loop));
  worker->pipe_ = std::move(to_worker ? data.writer : data.reader);
  worker->report_ = std::move(report.reader);
  worker->done_ = std::move(done);
  const base::UniqueFd theirs = std::move(to_worker ? data.reader : data.writer);
  ::fcntl(theirs.get(), F_SETPIPE_SZ, pipe_bytes);  // a smaller one is only slower
  TRY(base::set_nonblocking(worker->pipe_.get(), true));
  TRY(base::set_nonblocking(worker->report_.get(), true));
  worker->pid_ = ::fork();
  if (worker->pid_ < 0) return fail_errno(errno, "fork");
  if (worker->pid_ == 0) work_in_child(work, theirs.get(), report.writer.get());
  loop.on_exit(worker->pid_, [worker](int status) { worker->on_exit(status); });
  return worker;
}

Worker::~Worker() { close_pipe(); }

void Worker::close_pipe() {
  if (!pipe_) return;
  loop_.forget(pipe_.get());
  pipe_.reset();
}

void Worker::on_exit(int wait_status) {
  pid_ = -1;
  if (const auto call = std::exchange(done_, nullptr)) call(reported(report_.get(), wait_status));
  if (const auto call = std::exchange(gone_, nullptr)) call();
}

void Worker::cancel(std::function<void()> gone) {
  done_ = nullptr;
  close_pipe();
  if (pid_ <= 0) return gone();
  gone_ = std::move(gone);
  ::kill(pid_, SIGKILL);
}

}  // namespace agent
