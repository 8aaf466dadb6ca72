#pragma once
/// Quantities as people write them: bytes (`512m`, `1g`), durations (`1m30s`).

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace base {

/// `268435456`, `256m`, `256MB`, `1.5g`, `1GiB`: every suffix is a power of 1024, in any case.
/// Source of the rule: the Compose Specification ("byte values") and Apple's MemorySize.
Result<uint64_t> parse_bytes(std::string_view text);
/// The largest binary unit that divides exactly: `256m`, `1g`, `1500`.
std::string format_bytes(uint64_t bytes);

/// `90s`, `1m30s`, `1h`, `250ms`, `2d`, `1.5s`, `0`; units ns us µs ms s m h d w.
/// Source: the Compose Specification ("durations"). A bare number other than 0 is an error.
Result<int64_t> parse_duration_ns(std::string_view text);
/// `1m30s`, `250ms`, `0s`.
std::string format_duration_ns(int64_t nanoseconds);

}  // namespace base
