#include "guest/agent/rehearsal.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>

#include "base/fd.h"

namespace agent {
namespace {

constexpr size_t mapped_bytes = 256u << 10;
constexpr size_t page_bytes = 4096;
constexpr size_t head_bytes = 832;  ///< What the C library's loader reads of a file first.
constexpr int files_max = 4;
constexpr size_t written_bytes = 256u << 10;

/// As a dynamic loader: read the beginning, map the rest, look at each page.
void load(const std::string& path) {
  const base::UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat facts {};
  char head[head_bytes];
  if (!file || ::fstat(file.get(), &facts) != 0 || ::read(file.get(), head, sizeof head) <= 0)
    return;
  const size_t bytes = std::min(mapped_bytes, static_cast<size_t>(facts.st_size));
  void* mapped = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, file.get(), 0);
  if (mapped == MAP_FAILED) return;
  auto* content = static_cast<volatile char*>(mapped);
  for (size_t at = 0; at < bytes; at += page_bytes) content[at] = content[at];
  ::mprotect(mapped, bytes, PROT_READ | PROT_EXEC);
  ::munmap(mapped, bytes);
}

/// The first files of the only layer, which is the kernel's modules.
void load_from_layer() {
  utsname kernel{};
  ::uname(&kernel);
  const std::string folder = std::string("/") + kernel.release;
  const std::unique_ptr<DIR, int (*)(DIR*)> opened(::opendir(folder.c_str()), ::closedir);
  if (!opened) return;
  int left = files_max;
  while (const dirent* entry = ::readdir(opened.get()))
    if (entry->d_type == DT_REG && left-- > 0) load(folder + "/" + entry->d_name);
}

/// One file that stays, and is the layer where this is a build's step, and one that does not.
void write_something() {
  const std::string content(written_bytes, 'r');
  for (const char* path : {"/rehearsal", "/rehearsal-2"}) {
    const base::UniqueFd file(::open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0644));
    (void)!::write(file.get(), content.data(), content.size());
  }
  ::unlink("/rehearsal-2");
}

}  // namespace

int rehearse() {
  load_from_layer();
  write_something();
  (void)!::write(STDOUT_FILENO, "rehearsal\n", 10);
  return 0;
}

}  // namespace agent
