/// `container-launch`: confines itself, then becomes the program it is told to run.
///
///   container-launch [--uid N] [--group N]… [--read PATH]… [--write PATH]… [--preload FILE]
///       -- PROGRAM ARGUMENT…
///
/// Afterwards the process has no privileges and cannot get any, dumps no core, opens few files,
/// and (where the kernel has Landlock) reaches no path but the system's libraries and what was
/// named. Everything else it needs, it was given as a descriptor.

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <unistd.h>

#include "runtime/launch/confine.h"

namespace {

base::Result<> launch(int count, char** values) {
  runtime::LaunchRequest request =
      TRY(runtime::parse_launch(std::vector<std::string>(values + 1, values + count)));
  TRY(runtime::confine(request));
  // Nothing is inherited but the name of the system it belongs to, for whoever lists processes.
  const char* system = std::getenv("CONTAINER_APP_ROOT");
  std::string belongs = std::string("CONTAINER_APP_ROOT=") + (system != nullptr ? system : "");
  std::string preload = "LD_PRELOAD=" + request.preload;
  char* const environment[] = {const_cast<char*>("LC_ALL=C"), belongs.data(),
                               request.preload.empty() ? nullptr : preload.data(), nullptr};
  std::vector<char*> arguments;
  for (std::string& word : request.program) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  ::execve(arguments[0], arguments.data(), environment);
  return base::fail_errno(errno, "start " + request.program[0]);
}

}  // namespace

int main(int count, char** values) {
  const base::Result<> failed = launch(count, values);
  std::fprintf(stderr, "container-launch: %s\n", failed.error().to_string().c_str());
  return 127;
}
