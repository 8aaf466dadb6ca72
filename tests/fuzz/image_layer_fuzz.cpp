/// Layers of strangers: any bytes become a disk within its limits, or are refused; and the same
/// bytes become the same disk.

#include <cstdlib>
#include <optional>
#include <string>

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "image/decompress.h"
#include "image/erofs_writer.h"
#include "image/tar_reader.h"
#include "tests/fuzz/image_fuzz.h"

namespace {

constexpr uint64_t unpacked_max = 1u << 20;

base::Result<> write_disk(std::string_view input, int disk) {
  image::ErofsOptions options;
  options.unpacked_bytes_max = unpacked_max;
  options.tree = {.entries_max = 1000, .metadata_bytes_max = 1u << 20};
  image::ErofsWriter writer(disk, options);
  image::TarReader members =
      TRY(image::TarReader::create(TRY(image::decompressed(fuzz::source_of(input, 64u << 10)))));
  while (const auto entry = TRY(members.next())) TRY(writer.add(*entry, members));
  return writer.finish({});
}

std::optional<std::string> disk_of(std::string_view input) {
  const base::UniqueFd file(::memfd_create("disk", MFD_CLOEXEC));
  if (!file) std::abort();
  if (!write_disk(input, file.get())) return std::nullopt;
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) std::abort();
  std::string bytes(static_cast<size_t>(info.st_size), '\0');
  if (::pread(file.get(), bytes.data(), bytes.size(), 0) != info.st_size) std::abort();
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input = fuzz::text_of(data, size);
  const std::optional<std::string> disk = disk_of(input);
  if (!disk) return 0;
  if (disk->size() > 16 * unpacked_max || disk->size() % 4096 != 0) std::abort();
  if (disk_of(input) != disk) std::abort();
  return 0;
}
