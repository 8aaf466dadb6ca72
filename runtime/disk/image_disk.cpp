#include "runtime/disk/image_disk.h"

#include <array>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/limits.h"

namespace runtime {
namespace {

using base::ErrorCode;
using base::fail;
using base::Result;

constexpr uint64_t sector_bytes = 512;
constexpr uint64_t alignment_sectors = (1u << 20) / sector_bytes;
constexpr uint64_t disk_sectors = image_disk_bytes / sector_bytes;
constexpr uint32_t entry_count = 128;
constexpr uint32_t entry_bytes = 128;
constexpr uint64_t entry_sectors = entry_count * entry_bytes / sector_bytes;
constexpr uint64_t tail_sectors = entry_sectors + 1;
static_assert(base::limits::image_layers_max + 2 <= entry_count);

void put(std::string& bytes, size_t at, uint64_t value, size_t width) {
  for (size_t i = 0; i < width; ++i) bytes[at + i] = static_cast<char>(value >> (8 * i));
}

/// CRC-32 of the UEFI specification (reflected 0x04c11db7).
uint32_t crc32(std::string_view bytes) {
  uint32_t crc = ~0u;
  for (const char c : bytes) {
    crc ^= static_cast<uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (0xedb88320u & (0u - (crc & 1u)));
  }
  return ~crc;
}

/// GUIDs only tell partitions apart: the same disk everywhere, so they are constants.
void put_guid(std::string& bytes, size_t at, uint32_t number) {
  put(bytes, at, 0x63746e72u + number, 4);  // unique, never zero
  put(bytes, at + 4, 0x4000'8000'0000'0000ull | 0x1000u, 8);
  put(bytes, at + 12, number, 4);
}

std::string entries(const std::vector<Partition>& partitions) {
  // "Linux filesystem data", in its mixed-endian form on disk.
  static constexpr std::array<uint8_t, 16> linux_data = {0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84,
                                                         0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69,
                                                         0xd8, 0x47, 0x7d, 0xe4};
  std::string bytes(entry_sectors * sector_bytes, '\0');
  for (size_t i = 0; i < partitions.size(); ++i) {
    const size_t at = i * entry_bytes;
    std::memcpy(&bytes[at], linux_data.data(), linux_data.size());
    put_guid(bytes, at + 16, static_cast<uint32_t>(i) + 1);
    put(bytes, at + 32, partitions[i].first_sector, 8);
    put(bytes, at + 40, partitions[i].first_sector + partitions[i].sectors - 1, 8);
  }
  return bytes;
}

std::string header(const std::string& entry_table, bool primary) {
  std::string bytes(sector_bytes, '\0');
  std::memcpy(bytes.data(), "EFI PART", 8);
  constexpr uint32_t header_bytes = 92;
  put(bytes, 8, 0x00010000, 4);
  put(bytes, 12, header_bytes, 4);
  put(bytes, 24, primary ? 1 : disk_sectors - 1, 8);
  put(bytes, 32, primary ? disk_sectors - 1 : 1, 8);
  put(bytes, 40, alignment_sectors, 8);
  put(bytes, 48, disk_sectors - tail_sectors - 1, 8);
  put_guid(bytes, 56, 0);
  put(bytes, 72, primary ? 2 : disk_sectors - tail_sectors, 8);
  put(bytes, 80, entry_count, 4);
  put(bytes, 84, entry_bytes, 4);
  put(bytes, 88, crc32(entry_table), 4);
  put(bytes, 16, crc32(std::string_view(bytes).substr(0, header_bytes)), 4);
  return bytes;
}

std::string protective_mbr() {
  std::string bytes(sector_bytes, '\0');
  constexpr size_t entry = 446;
  put(bytes, entry + 1, 0x000200, 3);
  bytes[entry + 4] = static_cast<char>(0xee);
  put(bytes, entry + 5, 0xffffff, 3);
  put(bytes, entry + 8, 1, 4);
  put(bytes, entry + 12, std::min<uint64_t>(disk_sectors - 1, 0xffffffffu), 4);
  put(bytes, 510, 0xaa55, 2);
  return bytes;
}

Result<base::UniqueFd> memory_file(const char* name) {
  base::UniqueFd fd(::memfd_create(name, MFD_CLOEXEC));
  if (!fd) return base::fail_errno(errno, "memfd_create");
  return fd;
}

/// QEMU takes a descriptor from a set only if it was opened for what it wants to do.
Result<base::UniqueFd> reopen_read_only(const base::UniqueFd& fd) {
  ::fchmod(fd.get(), 0400);
  return base::open_file(fmt::format("/proc/self/fd/{}", fd.get()), O_RDONLY);
}

Result<> write_at(int fd, const std::string& bytes, uint64_t offset) {
  if (::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset)) !=
      static_cast<ssize_t>(bytes.size()))
    return base::fail_errno(errno, "write partition table");
  return {};
}

Result<uint64_t> size_of(int fd, const std::string& path) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return base::fail_errno(errno, fmt::format("stat '{}'", path));
  if (!S_ISREG(info.st_mode) || info.st_size == 0 || info.st_size % sector_bytes != 0)
    return fail(ErrorCode::InvalidArgument,
                "'{}' is no layer disk ({} bytes); pull the image again", path, info.st_size);
  return static_cast<uint64_t>(info.st_size);
}

}  // namespace

Result<std::vector<Partition>> place_partitions(const std::vector<uint64_t>& file_bytes) {
  std::vector<Partition> placed;
  if (file_bytes.size() > entry_count)
    return fail(ErrorCode::InvalidArgument, "an image disk holds at most {} files, not {}",
                entry_count, file_bytes.size());
  uint64_t next = alignment_sectors;
  for (const uint64_t bytes : file_bytes) {
    const uint64_t sectors = (bytes + sector_bytes - 1) / sector_bytes;
    if (sectors > disk_sectors - tail_sectors - next - 1)
      return fail(ErrorCode::NoSpace, "the image's layers are larger than {} GiB together",
                  image_disk_bytes >> 30);
    placed.push_back({.first_sector = next, .sectors = sectors});
    next = (next + sectors + alignment_sectors - 1) / alignment_sectors * alignment_sectors;
  }
  return placed;
}

std::string partition_table_head(const std::vector<Partition>& partitions) {
  const std::string table = entries(partitions);
  return protective_mbr() + header(table, true) + table;
}

std::string partition_table_tail(const std::vector<Partition>& partitions) {
  const std::string table = entries(partitions);
  return table + header(table, false);
}

std::string vmdk_descriptor(const std::vector<Partition>& partitions, int table_fdset,
                            const std::vector<int>& partition_fdsets) {
  // No empty line: QEMU takes the line after one for two extents.
  std::string text =
      "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\n"
      "createType=\"twoGbMaxExtentFlat\"\n";
  uint64_t at = 0;
  // The table's file is as large as the disk, so each gap is shown at its own place in it.
  const auto table_until = [&](uint64_t end) {
    if (end > at)
      text += fmt::format("RW {} FLAT \"/dev/fdset/{}\" {}\n", end - at, table_fdset, at);
    at = end;
  };
  for (size_t i = 0; i < partitions.size(); ++i) {
    table_until(partitions[i].first_sector);
    text +=
        fmt::format("RW {} FLAT \"/dev/fdset/{}\" 0\n", partitions[i].sectors, partition_fdsets[i]);
    at += partitions[i].sectors;
  }
  table_until(disk_sectors);
  return text;
}

Result<base::UniqueFd> read_only_memory_file(const char* name, const std::string& content) {
  const base::UniqueFd fd = TRY(memory_file(name));
  TRY(base::write_all(fd.get(), content));
  return reopen_read_only(fd);
}

Result<ImageDisk> open_image_disk(const std::vector<std::string>& files,
                                  const std::string& program) {
  ImageDisk disk;
  std::vector<uint64_t> sizes;
  for (const std::string& path : files) {
    disk.files.push_back(TRY(base::open_file(path, O_RDONLY)));
    sizes.push_back(TRY(size_of(disk.files.back().get(), path)));
  }
  if (!program.empty()) {
    disk.files.push_back(TRY(base::open_file(program, O_RDONLY)));
    struct stat info {};
    if (::fstat(disk.files.back().get(), &info) != 0 || !S_ISREG(info.st_mode))
      return fail(ErrorCode::InvalidArgument, "'{}' is no program", program);
    sizes.push_back(static_cast<uint64_t>(info.st_size));
  }
  disk.partitions = TRY(place_partitions(sizes));
  const base::UniqueFd table = TRY(memory_file("container-partitions"));
  if (::ftruncate(table.get(), static_cast<off_t>(image_disk_bytes)) != 0)
    return base::fail_errno(errno, "size partition table");
  const std::string tail = partition_table_tail(disk.partitions);
  TRY(write_at(table.get(), partition_table_head(disk.partitions), 0));
  TRY(write_at(table.get(), tail, image_disk_bytes - tail.size()));
  disk.table = TRY(reopen_read_only(table));
  return disk;
}

}  // namespace runtime
