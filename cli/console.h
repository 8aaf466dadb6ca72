#pragma once
/// The two streams of the command: results on stdout, everything else on stderr.
///
/// The only place that prints for commands that run to their end; what talks with a process for a
/// while (process_link.h, attached_up.h) writes its bytes itself.

#include <string>
#include <string_view>

#include "base/result.h"
#include "cli/progress.h"

namespace cli {

/// A result, to stdout. A reader that has left ends us by SIGPIPE, as it ends every filter.
base::Result<> print(std::string_view text);

/// To stderr, as it stands. Nobody listening is no error.
void tell(std::string_view text);
/// `Error: …`, with control bytes escaped. After that of a full disk, what to do: no argument of
/// the command could mend it.
void tell_error(const base::Error& error);
/// `Warning: …`, escaped.
void tell_warning(std::string_view text);

/// Control bytes escaped, but for line ends and tabs.
std::string printable(std::string_view text);
/// The same, and colours are left as they are: a line that a container wrote.
std::string printable_line(std::string_view line);

/// False where NO_COLOR is set, or where `fd` is no terminal that knows colours.
bool wants_colour(int fd);

struct TerminalSize {
  unsigned short rows = 24;
  unsigned short columns = 80;
};
/// Of the first of stdin, stdout and stderr that is a terminal.
TerminalSize terminal_size();

ProgressStyle progress_style();

}  // namespace cli
