/// `container`: understands a command line, does it, and tells how it went by its exit code.

#include <csignal>
#include <cstdlib>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/context.h"

namespace {

using base::Result;

Result<cli::Context> make_context() {
  api::Paths paths = TRY(api::find_paths());
  cli::HttpClient client(paths.api_socket());
  cli::Surroundings surroundings = TRY(cli::our_surroundings());
  return cli::Context{.paths = std::move(paths),
                      .client = std::move(client),
                      .surroundings = std::move(surroundings),
                      .root = &cli::root_command()};
}

Result<int> carry_out(const cli::Parsed& parsed) {
  if (parsed.has("version") && parsed.path.empty()) {
    TRY(cli::print(fmt::format("container {}\n", CONTAINER_VERSION)));
    return 0;
  }
  if (parsed.has("help") || parsed.command->handler == nullptr) {
    TRY(cli::print(cli::help(*parsed.command, parsed.path)));
    return 0;
  }
  // The daemon, if it is us who start it, shall say more as well.
  if (parsed.has("debug")) ::setenv("CONTAINER_DEBUG", "1", 1);
  cli::Context context = TRY(make_context());
  return parsed.command->handler(context, parsed);
}

}  // namespace

int main(int count, char** values) {
  // A closed pipe or socket is an answer of write(), which knows whose it was.
  std::signal(SIGPIPE, SIG_IGN);
  const std::vector<std::string> words(values + 1, values + count);
  const auto parsed = cli::parse(cli::root_command(), words);
  if (!parsed) {
    cli::tell(cli::usage(parsed.error()));
    return cli::exit_usage;
  }
  const Result<int> exit_code = carry_out(*parsed);
  if (exit_code) return *exit_code;
  cli::tell_error(exit_code.error());
  return 1;
}
