#include "runtime/disk/scratch_disk.h"

#include <cerrno>
#include <cstring>
#include <memory>
#include <mutex>

#include <ext2fs/ext2fs.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/text.h"

namespace runtime {
namespace {

using base::ErrorCode;
using base::fail;
using base::Result;

constexpr uint32_t block_bytes = 4096;
constexpr uint64_t bytes_per_inode = 32 * 1024;
constexpr uint16_t inode_bytes = 256;

Result<> check(errcode_t code, const char* step) {
  if (code == 0) return {};
  return fail(code == ENOSPC ? ErrorCode::NoSpace : ErrorCode::Io, "make ext4: {}: {}", step,
              ::error_message(code));
}

struct Ext2Close {
  void operator()(ext2_filsys fs) const { ::ext2fs_free(fs); }
};
using Ext2 = std::unique_ptr<struct_ext2_filsys, Ext2Close>;

/// No journal: the disk belongs to one VM and is thrown away with its container, and a journal
/// would write everything twice. Inode tables are left to the zeroes a sparse file reads.
ext2_super_block parameters(uint64_t bytes) {
  ext2_super_block super{};
  super.s_rev_level = EXT2_DYNAMIC_REV;
  super.s_log_block_size = 2;  // 1024 << 2
  super.s_log_cluster_size = 2;
  super.s_inode_size = inode_bytes;
  super.s_inodes_count = static_cast<uint32_t>(bytes / bytes_per_inode);
  super.s_log_groups_per_flex = 4;
  super.s_desc_size = EXT2_MIN_DESC_SIZE_64BIT;
  ext2fs_blocks_count_set(&super, bytes / block_bytes);
  super.s_feature_compat = EXT2_FEATURE_COMPAT_EXT_ATTR | EXT2_FEATURE_COMPAT_DIR_INDEX |
                           EXT4_FEATURE_COMPAT_SPARSE_SUPER2;
  super.s_feature_incompat = EXT2_FEATURE_INCOMPAT_FILETYPE | EXT3_FEATURE_INCOMPAT_EXTENTS |
                             EXT4_FEATURE_INCOMPAT_64BIT | EXT4_FEATURE_INCOMPAT_FLEX_BG;
  super.s_feature_ro_compat = EXT2_FEATURE_RO_COMPAT_LARGE_FILE | EXT4_FEATURE_RO_COMPAT_HUGE_FILE |
                              EXT4_FEATURE_RO_COMPAT_DIR_NLINK |
                              EXT4_FEATURE_RO_COMPAT_EXTRA_ISIZE |
                              EXT4_FEATURE_RO_COMPAT_METADATA_CSUM;
  return super;
}

Result<> format(const std::string& path, uint64_t bytes) {
  ext2_super_block super = parameters(bytes);
  ext2_filsys made = nullptr;
  TRY(check(::ext2fs_initialize(path.c_str(), EXT2_FLAG_EXCLUSIVE | EXT2_FLAG_64BITS, &super,
                                unix_io_manager, &made),
            "initialize"));
  const Ext2 fs(made);
  std::memset(fs->super->s_uuid, 0x63, sizeof fs->super->s_uuid);
  fs->super->s_def_hash_version = EXT2_HASH_HALF_MD4;
  fs->super->s_checksum_type = EXT2_CRC32C_CHKSUM;
  fs->super->s_min_extra_isize = 32;
  fs->super->s_want_extra_isize = 32;
  ::ext2fs_init_csum_seed(fs.get());
  TRY(check(::ext2fs_allocate_tables(fs.get()), "allocate tables"));
  for (dgrp_t group = 0; group < fs->group_desc_count; ++group) {
    // Never written inodes are zero in a sparse file: the guest need not clear them.
    ::ext2fs_bg_flags_set(fs.get(), group, EXT2_BG_INODE_ZEROED);
    ::ext2fs_bg_itable_unused_set(fs.get(), group, 0);
    ::ext2fs_group_desc_csum_set(fs.get(), group);
  }
  TRY(check(::ext2fs_mkdir(fs.get(), EXT2_ROOT_INO, EXT2_ROOT_INO, nullptr), "root folder"));
  for (ext2_ino_t inode = EXT2_BAD_INO; inode < EXT2_FIRST_INODE(fs->super); ++inode)
    if (inode != EXT2_ROOT_INO) ::ext2fs_inode_alloc_stats2(fs.get(), inode, +1, 0);
  ::ext2fs_mark_ib_dirty(fs.get());
  ::ext2fs_mark_bb_dirty(fs.get());
  ::ext2fs_mark_super_dirty(fs.get());
  return check(::ext2fs_flush(fs.get()), "write");
}

Result<base::UniqueFd> new_file(const std::string& path) {
  return base::open_file(path, O_RDWR | O_CREAT | O_EXCL, 0600);
}

/// Copies [from, to) of a data region.
Result<> copy_region(int source, int target, off_t from, off_t to) {
  if (::lseek(target, from, SEEK_SET) < 0) return base::fail_errno(errno, "write disk");
  while (from < to) {
    const ssize_t count = ::sendfile(target, source, &from, static_cast<size_t>(to - from));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return base::fail_errno(count == 0 ? EIO : errno, "copy the disk template");
  }
  return {};
}

Result<> copy_sparse(int source, int target) {
  struct stat info {};
  if (::fstat(source, &info) != 0) return base::fail_errno(errno, "stat disk template");
  if (::ftruncate(target, info.st_size) != 0) return base::fail_errno(errno, "size disk");
  off_t at = 0;
  while (at < info.st_size) {
    const off_t data = ::lseek(source, at, SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    if (data < 0) return base::fail_errno(errno, "find data of the disk template");
    const off_t hole = ::lseek(source, data, SEEK_HOLE);
    if (hole < 0) return base::fail_errno(errno, "find holes of the disk template");
    TRY(copy_region(source, target, data, hole));
    at = hole;
  }
  return {};
}

/// Runs `fill` on a temporary name beside `path`, then renames it there.
template <class Fill>
Result<> make_complete(const std::string& path, Fill&& fill) {
  const std::string temporary = fmt::format("{}.{}", path, base::random_hex(6));
  Result<> filled = fill(temporary);
  if (filled && ::rename(temporary.c_str(), path.c_str()) != 0)
    filled = base::fail_errno(errno, fmt::format("rename '{}'", temporary));
  if (!filled) ::unlink(temporary.c_str());
  return filled;
}

}  // namespace

Result<> make_scratch_template(const std::string& path, uint64_t bytes) {
  // libext2fs registers its error texts and builds its tables on first use.
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  if (base::path_exists(path)) return {};
  return make_complete(path, [&](const std::string& temporary) -> Result<> {
    const base::UniqueFd fd = TRY(new_file(temporary));
    if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0)
      return base::fail_errno(errno, "size disk template");
    TRY(format(temporary, bytes));
    if (::fsync(fd.get()) != 0) return base::fail_errno(errno, "sync disk template");
    return {};
  });
}

Result<> clone_disk(const std::string& from, const std::string& to) {
  if (base::path_exists(to)) return {};
  const base::UniqueFd source = TRY(base::open_file(from, O_RDONLY));
  return make_complete(to, [&](const std::string& temporary) -> Result<> {
    const base::UniqueFd target = TRY(new_file(temporary));
    if (::ioctl(target.get(), FICLONE, source.get()) == 0) return {};
    return copy_sparse(source.get(), target.get());
  });
}

}  // namespace runtime
