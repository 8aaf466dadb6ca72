#pragma once
/// Whom a file of the host belongs to in the eyes of guests it is shared with.

#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace base {

/// Where it stands (`USER:GROUP`) when the system is no root and cannot give files away.
inline constexpr std::string_view guest_owner_attribute = "user.container.owner";

/// `fd` is an open file or folder; `path` is for messages.
Result<> set_guest_owner(int fd, uint32_t user, uint32_t group, std::string_view path);

}  // namespace base
