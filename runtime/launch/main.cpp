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
#include "runtime/launch/environment.h"

namespace {

std::vector<char*> words_of(std::vector<std::string>& words) {
  std::vector<char*> made;
  for (std::string& word : words) made.push_back(word.data());
  made.push_back(nullptr);
  return made;
}

base::Result<> launch(int count, char** values) {
  runtime::LaunchRequest request =
      TRY(runtime::parse_launch(std::vector<std::string>(values + 1, values + count)));
  TRY(runtime::confine(request));
  const char* system = std::getenv("CONTAINER_APP_ROOT");
  std::vector<std::string> environment =
      runtime::launch_environment(system != nullptr ? system : "", request.preload);
  ::execve(request.program[0].c_str(), words_of(request.program).data(),
           words_of(environment).data());
  return base::fail_errno(errno, "start " + request.program[0]);
}

}  // namespace

int main(int count, char** values) {
  const base::Result<> failed = launch(count, values);
  std::fprintf(stderr, "container-launch: %s\n", failed.error().to_string().c_str());
  return 127;
}
