/// Image archives of strangers: loaded or refused, and either way the store holds only what its
/// names lead to, in files that are named by what is in them.

#include <cstdlib>
#include <filesystem>
#include <string>

#include "image/check.h"
#include "image/images.h"
#include "tests/fuzz/image_fuzz.h"

namespace fs = std::filesystem;

namespace {

size_t files(const fs::path& folder) {
  return static_cast<size_t>(
      std::distance(fs::directory_iterator(folder), fs::directory_iterator{}));
}

/// One store for all inputs, emptied after each.
struct System {
  fs::path folder;
  std::unique_ptr<image::Images> images;
  System() {
    const bool has_memory = fs::is_directory("/dev/shm");
    std::string name = (has_memory ? "/dev/shm/" : "/tmp/") + std::string("fuzz-XXXXXX");
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    folder = name;
    auto opened = image::Images::open({.root = folder / "images"});
    if (!opened) std::abort();
    images = std::move(*opened);
  }
  ~System() {
    images.reset();
    fs::remove_all(folder);
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static System system;
  const std::string_view input = fuzz::text_of(data, size);
  size_t at = 0;
  const auto loaded = system.images->load([&](char* buffer, size_t capacity) {
    const size_t count = input.copy(buffer, std::min<size_t>(capacity, 1000), at);
    at += count;
    return base::Result<size_t>(count);
  });
  if (loaded && loaded->references.empty()) std::abort();
  const auto report = image::check_store(system.images->store());
  if (!report || !report->repaired.empty() || !report->problems.empty()) std::abort();
  if (!system.images->prune(true)) std::abort();
  for (const char* part : {"blobs/sha256", "layers/sha256", "ingest", "partial", "leases"})
    if (files(system.folder / "images" / part) != 0) std::abort();
  return 0;
}
