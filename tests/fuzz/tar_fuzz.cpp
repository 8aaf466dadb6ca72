/// A tar that a build sends into a machine. The first byte chooses in what pieces it arrives: the
/// result must not depend on it.

#include <algorithm>
#include <cstdlib>
#include <string>

#include "guest/agent/build/tar_reader.h"
#include "guest/agent/build/tar_writer.h"

namespace {

std::string read_all(std::string_view input, size_t piece) {
  agent::TarReader reader([&](char* buffer, size_t capacity) -> base::Result<size_t> {
    const size_t count = std::min({input.size(), piece, capacity});
    std::copy_n(input.data(), count, buffer);
    input.remove_prefix(count);
    return count;
  });
  std::string seen;
  for (;;) {
    const auto entry = reader.next();
    if (!entry) return seen + "!" + entry.error().to_string();
    if (!*entry) return seen;
    if ((*entry)->path.empty() || (*entry)->path.find('\0') != std::string::npos) std::abort();
    seen += agent::tar_header(**entry);
    uint64_t size = 0;
    for (;;) {
      const auto some = reader.content();
      if (!some) return seen + "!" + some.error().to_string();
      if (some->empty()) break;
      size += some->size();
      seen += *some;
    }
    if (size != (*entry)->size) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t piece = 1 + size_t{data[0]} * 8;
  if (read_all(input, piece) != read_all(input, input.size() + 1)) std::abort();
  return 0;
}
