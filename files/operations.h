#pragma once
/// The server behind FileServer: one member function per FUSE operation, grouped by file:
/// server.cpp (start, dispatch, session), names.cpp (folders and entries), attributes.cpp (what
/// stat and xattr see), data.cpp (open files).

#include <dirent.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/guest_owner.h"
#include "files/inodes.h"
#include "files/message.h"
#include "files/server.h"

namespace files {

/// More open files and folders than this are refused with ENFILE.
inline constexpr size_t handles_max = 65'536;
/// How long the guest may trust what it was told, in seconds: another VM or the host may change it.
inline constexpr uint64_t trust_seconds = 1;
using base::guest_owner_attribute;

struct CloseFolder {
  void operator()(DIR* folder) const { ::closedir(folder); }
};

struct Handle {
  base::UniqueFd file;
  std::unique_ptr<DIR, CloseFolder> folder;
  int64_t next_offset = 0;  ///< Of `folder`: where the next entry would be read.
  bool writable = false;
};

struct OpenShare {
  Share share;
  base::UniqueFd place;
  struct stat info {};
};

class Server final : public FileServer {
 public:
  Server(std::vector<OpenShare> shares, bool mapped_ownership)
      : shares_(std::move(shares)), mapped_(mapped_ownership) {}
  std::optional<std::string> handle(std::string_view request) override;

 private:
  struct Call {
    fuse_in_header header;
    Arguments arguments;
  };
  Reply dispatch(Call& call);
  Reply dispatch_names(Call& call);
  Reply dispatch_data(Call& call);
  Reply dispatch_attributes(Call& call);
  void forget_many(Call& call);
  Reply initialise(Call& call);

  // names.cpp
  Reply lookup(Call& call);
  Reply lookup_share(const std::string& name);
  Reply make_node(Call& call);
  Reply make_folder(Call& call);
  Reply make_link(Call& call);
  Reply make_symbolic_link(Call& call);
  Reply read_symbolic_link(Call& call);
  Reply remove_entry(Call& call, int flags);
  Reply rename(Call& call, bool extended);
  Reply create_file(Call& call);
  Reply open_folder(Call& call);
  Reply read_folder(Call& call, bool with_attributes);
  Reply read_root(uint64_t offset, size_t bytes_max, bool with_attributes);
  /// The entry `name` of `parent` as the guest shall know it.
  Reply entry_reply(Inode& parent, const std::string& name);
  /// What a new object gets from its maker: owner and, where umask took it away, mode.
  int take_ownership(Inode& parent, const std::string& name, const fuse_in_header& header);
  bool append_entry(std::string& listing, size_t bytes_max, const dirent& entry, Inode* parent,
                    bool with_attributes);

  // attributes.cpp
  Reply get_attributes(Call& call);
  Reply set_attributes(Call& call);
  int change_attributes(Inode& inode, const fuse_setattr_in& wanted);
  Reply filesystem_statistics(Call& call);
  Reply get_extended(Call& call);
  Reply set_extended(Call& call);
  Reply list_extended(Call& call);
  Reply remove_extended(Call& call);
  fuse_attr attributes_of(uint64_t number, const struct stat& info, const std::string& proc_path);
  fuse_attr root_attributes() const;
  int set_owner(const std::string& proc_path, std::optional<uint32_t> user,
                std::optional<uint32_t> group);

  // data.cpp
  Reply open_file(Call& call);
  Reply read_file(Call& call);
  Reply write_file(Call& call);
  Reply sync(Call& call);
  Reply allocate(Call& call);
  Reply seek(Call& call);
  Reply release(Call& call);

  Inode* inode(uint64_t number) { return inodes_.find(number); }
  bool read_only(const Inode& inode) const { return shares_[inode.share].share.read_only; }
  /// The inode if it may be changed, else why not (ENOENT, EROFS) in `error`.
  Inode* changeable(uint64_t number, int& error);
  Handle* find_handle(uint64_t number);
  /// 0 if there are too many.
  uint64_t keep(Handle handle);

  std::vector<OpenShare> shares_;
  bool mapped_ = false;
  Inodes inodes_;
  std::map<uint64_t, Handle> handles_;
  uint64_t next_handle_ = 1;
};

}  // namespace files
