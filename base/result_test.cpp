#include "base/result.h"

#include <cerrno>

#include <doctest/doctest.h>

using base::Error;
using base::ErrorCode;
using base::Result;

namespace {

Result<int> half(int number) {
  if (number % 2 != 0) return base::fail(ErrorCode::InvalidArgument, "{} is odd", number);
  return number / 2;
}

Result<int> quarter(int number) {
  const int halved = TRY_DURING(half(number), "halve {}", number);
  return TRY_DURING(half(halved), "quarter {}", number);
}

}  // namespace

TEST_CASE("TRY gives the value, or returns the error with the steps around it, outermost first") {
  CHECK(quarter(8).value() == 2);

  const Result<int> failed = quarter(6);

  REQUIRE_FALSE(failed);
  CHECK(failed.error().code() == ErrorCode::InvalidArgument);
  CHECK(failed.error().to_string() == "quarter 6: 3 is odd");
  CHECK(failed.error().cause() == "3 is odd");
}

TEST_CASE("an errno becomes the code a caller branches on") {
  const auto code = [](int number) {
    return Result<>(base::fail_errno(number, "x")).error().code();
  };
  CHECK(code(ENOENT) == ErrorCode::NotFound);
  CHECK(code(ENOSPC) == ErrorCode::NoSpace);
  CHECK(code(EADDRINUSE) == ErrorCode::Busy);
  CHECK(code(EACCES) == ErrorCode::Denied);
  CHECK(code(EIO) == ErrorCode::Io);
}

TEST_CASE("every error code has a name that leads back to it") {
  for (const ErrorCode code :
       {ErrorCode::InvalidArgument, ErrorCode::NotFound, ErrorCode::Exists, ErrorCode::InvalidState,
        ErrorCode::Busy, ErrorCode::Timeout, ErrorCode::Cancelled, ErrorCode::Unsupported,
        ErrorCode::NoSpace, ErrorCode::Denied, ErrorCode::Io, ErrorCode::Internal})
    CHECK(base::error_code_from_name(base::error_code_name(code)) == code);
  CHECK(base::error_code_from_name("nonsense") == ErrorCode::Internal);
}
