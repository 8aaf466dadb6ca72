#pragma once
/// How every fallible function of the project reports failure: a value, never an exception.
///
/// `Result<T>` holds a T or an Error. TRY unwraps it or returns the error to the caller;
/// TRY_DURING does the same and adds what we were doing. Exceptions of libraries are caught in
/// the one function that calls the library.

#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <tl/expected.hpp>

namespace base {

/// What a caller may branch on. Everything else belongs in the text.
enum class ErrorCode {
  InvalidArgument,  ///< The request itself is wrong: a name, a flag, a stack file.
  NotFound,         ///< What the request names does not exist.
  Exists,           ///< What the request would make is already there.
  InvalidState,     ///< Right request, wrong moment: "container x is not running".
  Busy,             ///< Somebody else holds it: a port, a lock, a volume.
  Timeout,          ///< A deadline passed; the text names what was waited for.
  Cancelled,        ///< The caller gave up.
  Unsupported,      ///< Understood and refused: this system cannot do it.
  NoSpace,          ///< A disk or a quota is full.
  Denied,           ///< The host forbids it; the text says what to allow.
  Io,               ///< The system refused: a file, a socket, a process.
  Internal,         ///< Our mistake.
};

/// `invalid-argument`, `not-found`, …: the form used in JSON and in logs.
std::string_view error_code_name(ErrorCode code);
/// The inverse; `Internal` for a name it does not know.
ErrorCode error_code_from_name(std::string_view name);

class [[nodiscard]] Error {
 public:
  Error(ErrorCode code, std::string cause) : code_(code), cause_(std::move(cause)) {}
  ErrorCode code() const { return code_; }
  /// The innermost text, without the steps around it.
  const std::string& cause() const { return cause_; }

  /// Adds one outer step: what we were doing when this failed.
  Error&& during(std::string step) && {
    steps_.push_back(std::move(step));
    return std::move(*this);
  }

  /// One line, outermost first: `start 'db': attach disk 'x': open 'x': no such file`.
  std::string to_string() const {
    std::string line;
    for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) line += *step + ": ";
    return line += cause_;
  }

 private:
  ErrorCode code_;
  std::string cause_;
  std::vector<std::string> steps_;  // innermost first
};

template <class T = void>
using Result = tl::expected<T, Error>;

template <class... Args>
tl::unexpected<Error> fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  return tl::unexpected<Error>(Error(code, fmt::format(format, std::forward<Args>(args)...)));
}

/// A failed system call: `open '/x': No such file or directory`. The code follows `errno_value`:
/// ENOENT is NotFound, EEXIST is Exists, ENOSPC and EDQUOT are NoSpace, EACCES and EPERM are
/// Denied, EADDRINUSE and EBUSY are Busy, ETIMEDOUT is Timeout, anything else is Io.
tl::unexpected<Error> fail_errno(int errno_value, std::string_view what);

template <class T>
T take(Result<T>&& result) {
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

}  // namespace base

#define TRY_NAME_2(n) try_result_##n
#define TRY_NAME(n) TRY_NAME_2(n)
#define TRY_IMPL(name, expression, ...)                                            \
  __extension__({                                                                  \
    auto name = (expression);                                                      \
    if (!name) [[unlikely]]                                                        \
      return ::tl::unexpected<::base::Error>(std::move(name.error()) __VA_ARGS__); \
    ::base::take(std::move(name));                                                 \
  })
/// Unwraps a Result, or returns its Error to our caller.
#define TRY(expression) TRY_IMPL(TRY_NAME(__COUNTER__), expression)
/// The same, and says what we were doing; formatted only on failure.
#define TRY_DURING(expression, ...) \
  TRY_IMPL(TRY_NAME(__COUNTER__), expression, .during(::fmt::format(__VA_ARGS__)))
