#pragma once
/// One read-only disk out of many files, without copying a byte of them.
///
/// The disk is a GUID partition table, the kernel's modules as partition 1, and the image's layers
/// as partitions 2 and up. The table lives in a sparse anonymous file as large as the disk; QEMU
/// joins it with the layers by a VMDK descriptor whose extents name descriptors it was given, so
/// it needs no path. Every such disk has the same size, whatever it holds: a VM can be cloned from
/// a template that saw another image.

#include <cstdint>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace runtime {

inline constexpr uint64_t image_disk_bytes = 1ull << 40;

struct Partition {
  uint64_t first_sector = 0;
  uint64_t sectors = 0;
};

/// Where each file goes, in order, 1 MiB aligned. NoSpace if they do not fit.
base::Result<std::vector<Partition>> place_partitions(const std::vector<uint64_t>& file_bytes);

/// Primary table: protective MBR, header and entries; to be written at byte 0.
std::string partition_table_head(const std::vector<Partition>& partitions);
/// Backup table: entries and header; to be written so that it ends with the disk.
std::string partition_table_tail(const std::vector<Partition>& partitions);

/// The VMDK text. Extent files are `/dev/fdset/N`: the table's set, then one for each partition.
std::string vmdk_descriptor(const std::vector<Partition>& partitions, int table_fdset,
                            const std::vector<int>& partition_fdsets);

struct ImageDisk {
  base::UniqueFd table;               ///< Read-only, sparse, image_disk_bytes long.
  std::vector<base::UniqueFd> files;  ///< Modules, layers, program; read-only.
  std::vector<Partition> partitions;
};

/// Opens `files` (lowest layer first, after the modules) and makes the table. `program`, unless it
/// is empty, is a file of any size that becomes the last partition as it is.
base::Result<ImageDisk> open_image_disk(const std::vector<std::string>& files,
                                        const std::string& program = "");

/// An anonymous file with `content`, reopened read-only.
base::Result<base::UniqueFd> read_only_memory_file(const char* name, const std::string& content);

}  // namespace runtime
