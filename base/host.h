#pragma once
/// What this host lets a process be, and how much it lets it run.

#include <cstdint>

namespace base {

/// True if user and group ids `first` … `first + count - 1` exist in this process's user namespace.
bool ids_are_mapped(uint32_t first, uint32_t count);

/// How long the process's busiest waiter among its threads has waited for a processor while it
/// could run, since it exists, in nanoseconds. 0 where the kernel does not count it.
int64_t processor_wait_ns(int64_t pid);

}  // namespace base
