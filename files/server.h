#pragma once
/// Serves host folders to one VM: the far end of the guest's FUSE (Linux kernel, fuse.h, 7.31+).
///
/// The guest's kernel is not trusted. Every name is one component, checked; every object is reached
/// from a descriptor that was opened beneath its share, never by a path; nothing but regular files
/// and folders is ever opened for data; a share that is read-only refuses changes here, whatever
/// the guest's mount says. Each request is answered with a reply or an errno, never with a crash.
///
/// The root of the tree is virtual: its entries are the shares' names. Does no I/O of its own on
/// the wire; see main.cpp.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace files {

struct Share {
  std::string name;  ///< Entry in the tree's root.
  std::string path;  ///< Host folder or file, absolute.
  bool read_only = false;
};

struct ServerOptions {
  std::vector<Share> shares;
  /// Without privilege we cannot give files away: owners the guest sets are then kept in the
  /// extended attribute `user.container.owner`, and files of ours appear as the guest's root's.
  bool mapped_ownership = false;
};

class FileServer {
 public:
  /// Opens the shares. NotFound names the share whose path is missing.
  static base::Result<std::unique_ptr<FileServer>> create(const ServerOptions& options);
  virtual ~FileServer() = default;

  /// One whole FUSE request (fuse_in_header and body) → one whole reply, or nothing for requests
  /// that have none (FORGET, INTERRUPT). A malformed request is answered with EINVAL or EIO.
  virtual std::optional<std::string> handle(std::string_view request) = 0;
};

}  // namespace files
