#pragma once
/// Forks a process with all its threads, each where it was.
///
/// fork() leaves the child with one thread. Here every other thread is stopped by a signal, tells
/// where it stands, and is made anew in the child with the same stack and the same thread-local
/// memory, so that it goes on as if nothing had happened. This is done only while each of them
/// waits in the kernel for something to happen: then none holds a lock of the C library.
///
/// The caller must be a thread of its own that does nothing else. It is what the child begins
/// with, and it must not return there: the child's process lives as long as that thread.

#include <functional>

#include <sys/types.h>

#include "base/result.h"

namespace runtime {

/// Once, before the process has a second thread. Threads must never block `parking_signal`.
void prepare_to_fork_threads();
int parking_signal();

/// The child's process id. `in_child` runs there while it has no other thread yet; if it returns
/// false the child ends. InvalidState: some thread was busy; nothing has happened.
base::Result<pid_t> fork_with_threads(const std::function<bool()>& in_child);

}  // namespace runtime
