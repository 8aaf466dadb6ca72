#pragma once
/// Being the terminal, the pipes and the signals of a process in a container, until it ends.
///
/// One loop over the daemon's frames, our stdin, stdout and stderr, and signals; nothing in it
/// blocks but the wait, and it holds one frame each way: a slow reader slows the process.

#include <functional>

#include "base/result.h"
#include "cli/apply.h"
#include "cli/http_client.h"
#include "cli/line_stream.h"
#include "cli/terminal.h"

namespace cli {

struct LinkOptions {
  bool stdin_open = false;  ///< Our stdin is its stdin.
  bool terminal = false;    ///< It has a terminal, whose size is ours.
  /// The plan that starts it, where that is still going on. Its problem is the link's.
  LineStream* starting = nullptr;
  /// The same, where the daemon tells of it on this very connection.
  bool awaits_start = false;
  /// Called once the process is known to have been started.
  std::function<base::Result<>()> on_started;
};

/// The signals that a link passes on or acts upon. Block them before the link is opened.
base::Result<SignalQueue> link_signals();

/// The exit code of the process. 128 + SIGPIPE when nobody reads our stdout any more: then the
/// process gets SIGPIPE, and SIGKILL when it goes on nevertheless.
base::Result<int> talk(Upgraded connection, SignalQueue& signals, const LinkOptions& options);

}  // namespace cli
