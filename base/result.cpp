#include "base/result.h"

#include <array>
#include <cerrno>
#include <cstring>

namespace base {
namespace {

struct NamedCode {
  ErrorCode code;
  std::string_view name;
};

constexpr std::array named_codes = {
    NamedCode{ErrorCode::InvalidArgument, "invalid-argument"},
    NamedCode{ErrorCode::NotFound, "not-found"},
    NamedCode{ErrorCode::Exists, "exists"},
    NamedCode{ErrorCode::InvalidState, "invalid-state"},
    NamedCode{ErrorCode::Busy, "busy"},
    NamedCode{ErrorCode::Timeout, "timeout"},
    NamedCode{ErrorCode::Cancelled, "cancelled"},
    NamedCode{ErrorCode::Unsupported, "unsupported"},
    NamedCode{ErrorCode::NoSpace, "no-space"},
    NamedCode{ErrorCode::Denied, "denied"},
    NamedCode{ErrorCode::Io, "io"},
    NamedCode{ErrorCode::Internal, "internal"},
};

ErrorCode code_of_errno(int errno_value) {
  switch (errno_value) {
    case ENOENT: return ErrorCode::NotFound;
    case EEXIST: return ErrorCode::Exists;
    case ENOSPC:
    case EDQUOT: return ErrorCode::NoSpace;
    case EACCES:
    case EPERM: return ErrorCode::Denied;
    case EADDRINUSE:
    case EBUSY: return ErrorCode::Busy;
    case ETIMEDOUT: return ErrorCode::Timeout;
    default: return ErrorCode::Io;
  }
}

}  // namespace

std::string_view error_code_name(ErrorCode code) {
  for (const NamedCode& named : named_codes)
    if (named.code == code) return named.name;
  return "internal";
}

ErrorCode error_code_from_name(std::string_view name) {
  for (const NamedCode& named : named_codes)
    if (named.name == name) return named.code;
  return ErrorCode::Internal;
}

tl::unexpected<Error> fail_errno(int errno_value, std::string_view what) {
  return fail(code_of_errno(errno_value), "{}: {}", what, std::strerror(errno_value));
}

}  // namespace base
