#pragma once
/// A tar archive as a Tree: a context from stdin, or an archive that ADD unpacks.
///
/// The archive is spooled once, decompressed, into an unlinked temporary file; names and places are
/// kept in memory, contents are read from the file. Names are clamped to the root, a later member
/// replaces an earlier one, hard links must name a file that came before. Nothing is ever unpacked
/// on the host.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "builder/tree.h"
#include "image/bytes.h"

namespace builder {

struct TarTreeOptions {
  std::string spool_folder = "/tmp";
  uint64_t bytes_max = 0;      ///< Decompressed; 0 stands for limits::context_bytes_max.
  bool owned_by_root = false;  ///< As a context's files are.
};

/// Plain, gzip, zstd, xz or bzip2. InvalidArgument if it is no archive. Thread-safe.
base::Result<std::unique_ptr<Tree>> open_tar_tree(image::ByteSource source,
                                                  const TarTreeOptions& options = {});

/// The same for an archive that is a file of another tree.
base::Result<std::unique_ptr<Tree>> open_tar_file(const Tree& tree, const std::string& path,
                                                  const TarTreeOptions& options = {});

/// True if the file is an archive that ADD unpacks: after decompression, if it is compressed, it
/// begins with a tar header. Only the beginning is read; the name says nothing.
base::Result<bool> is_archive(const Tree& tree, const std::string& path);

}  // namespace builder
