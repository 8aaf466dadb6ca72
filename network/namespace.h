#pragma once
/// A network namespace that outlives everybody who uses it, and work done inside it.
///
/// A keeper is a process that does nothing but stay in the namespace; as long as it lives (or
/// anybody holds a socket or TAP made inside) the bridge goes on switching. Work inside is done by
/// short-lived children that enter, act, and send back descriptors: so the process that serves the
/// network never leaves the host's namespace, and an old keeper works with a new program.

#include <functional>
#include <string>
#include <vector>

#include "base/deadline.h"
#include "base/fd.h"
#include "base/process.h"
#include "base/result.h"

namespace network {

struct Keeper {
  base::ProcessIdentity process;
  base::UniqueFd pidfd;
  base::UniqueFd user_namespace;  ///< Not set where we are privileged: then it is the host's own.
  base::UniqueFd net_namespace;
};

/// A new namespace: with CAP_SYS_ADMIN directly, otherwise together with a user namespace.
/// Denied says what the host must allow.
base::Result<Keeper> make_keeper();
/// The namespace of a keeper made earlier, perhaps by another process. NotFound if it is gone.
base::Result<Keeper> open_keeper(const base::ProcessIdentity& identity);
/// A new keeper for a namespace whose keeper died, while our descriptors still hold it.
base::Result<Keeper> revive_keeper(const Keeper& dead);

struct InsideResult {
  std::string text;
  std::vector<base::UniqueFd> descriptors;  ///< At most inside_descriptors_max.
};
inline constexpr size_t inside_descriptors_max = 16;
using InsideWork = std::function<base::Result<InsideResult>()>;

/// Runs `work` in a child process inside the namespace and brings its result here. `doing` names
/// it in errors; past the deadline the child is killed.
base::Result<InsideResult> run_inside(const Keeper& keeper, std::string_view doing,
                                      const InsideWork& work, const base::Deadline& deadline);

}  // namespace network
