#include "cli/commands.h"

#include <nlohmann/json.hpp>

#include "cli/console.h"
#include "cli/context.h"

namespace cli {
namespace {

base::Result<int> show_help(Context& context, const Parsed& parsed) {
  const auto found = find_command(*context.root, parsed.arguments);
  if (!found) {
    tell(usage(found.error()));
    return exit_usage;
  }
  TRY(print(help(*found->command, found->path)));
  return 0;
}

Command make_root() {
  Command root{.name = "container",
               .summary = "Containers, each in a virtual machine of its own",
               .flags = {{.name = "version", .help = "Show the version"}}};
  for (std::vector<Command> part :
       {process_commands(), container_commands(), stack_commands(), image_commands(),
        build_commands(), registry_commands(), resource_commands(), system_commands()})
    for (Command& command : part) root.commands.push_back(std::move(command));
  root.commands.push_back({.name = "help",
                           .group = "System",
                           .summary = "Show the help of a command",
                           .arguments = "[COMMAND…]",
                           .arguments_max = any_number,
                           .handler = show_help});
  return root;
}

}  // namespace

const Command& root_command() {
  static const Command root = make_root();
  return root;
}

}  // namespace cli
