#include "cli/console.h"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/text.h"

namespace cli {
namespace {

using base::Result;

/// Also for streams that somebody else made non-blocking.
int write_fully(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(fd, bytes.data(), bytes.size());
    if (count >= 0) {
      bytes.remove_prefix(static_cast<size_t>(count));
      continue;
    }
    if (errno == EAGAIN) {
      pollfd writable{.fd = fd, .events = POLLOUT, .revents = 0};
      (void)::poll(&writable, 1, -1);
    } else if (errno != EINTR) {
      return errno;
    }
  }
  return 0;
}

/// The length of `ESC [ digits and semicolons m` at the start of `text`; 0 if it is none.
size_t colour_length(std::string_view text) {
  if (!text.starts_with("\x1b[")) return 0;
  const size_t end = text.find_first_not_of("0123456789;", 2);
  return end != std::string_view::npos && text[end] == 'm' ? end + 1 : 0;
}

std::string escaped(std::string_view text, bool colours) {
  std::string out;
  size_t start = 0;
  const auto flush = [&](size_t end) {
    if (end > start) out += base::escape_controls(text.substr(start, end - start));
  };
  for (size_t i = 0; i < text.size();) {
    const size_t colour = colours ? colour_length(text.substr(i)) : 0;
    const size_t kept = colour != 0 ? colour : (text[i] == '\n' || text[i] == '\t' ? 1 : 0);
    if (kept == 0) {
      ++i;
      continue;
    }
    flush(i);
    out += text.substr(i, kept);
    i += kept;
    start = i;
  }
  flush(text.size());
  return out;
}

/// Addresses and ports may run out as well; those errors have an advice of their own.
bool tells_of_full_disk(std::string_view text) {
  for (const std::string_view sign :
       {std::string_view("disk is full"), std::string_view(std::strerror(ENOSPC)),
        std::string_view(std::strerror(EDQUOT))})
    if (text.find(sign) != std::string_view::npos) return true;
  return false;
}

constexpr std::string_view full_disk_advice =
    "Make room on that disk, then run the same command again; `container system df` tells what "
    "this system takes, `container rm`, `image rm` and `builder prune` give it back.\n";

}  // namespace

Result<> print(std::string_view text) {
  const int problem = write_fully(STDOUT_FILENO, text);
  if (problem == 0) return {};
  if (problem == EPIPE) {
    (void)std::signal(SIGPIPE, SIG_DFL);
    (void)std::raise(SIGPIPE);
  }
  return base::fail_errno(problem, "write to stdout");
}

void tell(std::string_view text) { (void)write_fully(STDERR_FILENO, text); }

void tell_error(const base::Error& error) {
  const std::string text = error.to_string();
  tell(fmt::format("Error: {}\n", printable(text)));
  if (error.code() == base::ErrorCode::NoSpace && tells_of_full_disk(text)) tell(full_disk_advice);
}

void tell_warning(std::string_view text) { tell(fmt::format("Warning: {}\n", printable(text))); }

std::string printable(std::string_view text) { return escaped(text, false); }
std::string printable_line(std::string_view line) { return escaped(line, true); }

bool wants_colour(int fd) {
  const char* none = std::getenv("NO_COLOR");
  const char* terminal = std::getenv("TERM");
  return (none == nullptr || *none == '\0') && ::isatty(fd) == 1 && terminal != nullptr &&
         std::string_view(terminal) != "dumb";
}

TerminalSize terminal_size() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    winsize size{};
    if (::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 && size.ws_col > 0)
      return {.rows = size.ws_row, .columns = size.ws_col};
  }
  return {};
}

ProgressStyle progress_style() {
  const TerminalSize size = terminal_size();
  const char* terminal = std::getenv("TERM");
  const bool live =
      ::isatty(STDERR_FILENO) == 1 && terminal != nullptr && std::string_view(terminal) != "dumb";
  return {.live = live,
          .colour = wants_colour(STDERR_FILENO),
          .width = size.columns,
          .height = size.rows};
}

}  // namespace cli
