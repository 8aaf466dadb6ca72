#pragma once
/// The table of all commands. Each file command_*.cpp brings its part of it.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cli/arguments.h"

namespace cli {

const Command& root_command();

std::vector<Command> container_commands();       ///< stop kill restart delete ls inspect logs
std::vector<Command> process_commands();         ///< run create start exec
std::vector<Command> stack_commands();           ///< up down plan config
std::vector<Command> image_commands();           ///< image …
std::vector<Command> image_transfer_commands();  ///< image pull, image push
std::vector<Command> build_commands();           ///< build …, builder …
std::vector<Command> registry_commands();        ///< registry …
std::vector<Command> resource_commands();        ///< network …, volume …
std::vector<Command> system_commands();          ///< system …, version

/// How many arguments a command takes where no number is too many.
inline constexpr size_t any_number = SIZE_MAX;

}  // namespace cli
