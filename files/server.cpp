#include "files/server.h"

#include <cerrno>

#include <fcntl.h>
#include <sys/stat.h>

#include "files/operations.h"

namespace files {

base::Result<std::unique_ptr<FileServer>> FileServer::create(const ServerOptions& options) {
  std::vector<OpenShare> opened;
  for (const Share& share : options.shares) {
    OpenShare open;
    open.share = share;
    // The user named this path, so its own links are followed; the guest never names one.
    open.place = TRY_DURING(base::open_file(share.path, O_PATH), "share '{}'", share.name);
    if (::fstat(open.place.get(), &open.info) != 0)
      return base::fail_errno(errno, fmt::format("share '{}'", share.name));
    opened.push_back(std::move(open));
  }
  return std::make_unique<Server>(std::move(opened), options.mapped_ownership);
}

std::optional<std::string> Server::handle(std::string_view request) {
  Arguments whole(request);
  const std::optional<fuse_in_header> header = whole.take<fuse_in_header>();
  if (!header) return std::nullopt;
  Call call{*header, whole};
  switch (header->opcode) {
    case FUSE_FORGET:
      if (const auto forget = call.arguments.take<fuse_forget_in>())
        inodes_.forget(header->nodeid, forget->nlookup);
      return std::nullopt;
    case FUSE_BATCH_FORGET: forget_many(call); return std::nullopt;
    // Requests are handled one after the other, so what is to be interrupted is done already.
    case FUSE_INTERRUPT: return std::nullopt;
    default: return dispatch(call).message(header->unique);
  }
}

void Server::forget_many(Call& call) {
  const auto batch = call.arguments.take<fuse_batch_forget_in>();
  for (uint32_t i = 0; batch && i < batch->count; ++i) {
    const auto one = call.arguments.take<fuse_forget_one>();
    if (!one) return;
    inodes_.forget(one->nodeid, one->nlookup);
  }
}

Reply Server::dispatch(Call& call) {
  switch (call.header.opcode) {
    case FUSE_INIT: return initialise(call);
    case FUSE_DESTROY: return {};
    case FUSE_LOOKUP:
    case FUSE_MKNOD:
    case FUSE_MKDIR:
    case FUSE_LINK:
    case FUSE_SYMLINK:
    case FUSE_READLINK:
    case FUSE_UNLINK:
    case FUSE_RMDIR:
    case FUSE_RENAME:
    case FUSE_RENAME2:
    case FUSE_CREATE:
    case FUSE_OPENDIR:
    case FUSE_READDIR:
    case FUSE_READDIRPLUS: return dispatch_names(call);
    case FUSE_OPEN:
    case FUSE_READ:
    case FUSE_WRITE:
    case FUSE_FLUSH:
    case FUSE_FSYNC:
    case FUSE_FSYNCDIR:
    case FUSE_FALLOCATE:
    case FUSE_LSEEK:
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR: return dispatch_data(call);
    default: return dispatch_attributes(call);
  }
}

Reply Server::dispatch_names(Call& call) {
  switch (call.header.opcode) {
    case FUSE_LOOKUP: return lookup(call);
    case FUSE_MKNOD: return make_node(call);
    case FUSE_MKDIR: return make_folder(call);
    case FUSE_LINK: return make_link(call);
    case FUSE_SYMLINK: return make_symbolic_link(call);
    case FUSE_READLINK: return read_symbolic_link(call);
    case FUSE_UNLINK: return remove_entry(call, 0);
    case FUSE_RMDIR: return remove_entry(call, AT_REMOVEDIR);
    case FUSE_RENAME: return rename(call, false);
    case FUSE_RENAME2: return rename(call, true);
    case FUSE_CREATE: return create_file(call);
    case FUSE_OPENDIR: return open_folder(call);
    case FUSE_READDIR: return read_folder(call, false);
    default: return read_folder(call, true);
  }
}

Reply Server::dispatch_data(Call& call) {
  switch (call.header.opcode) {
    case FUSE_OPEN: return open_file(call);
    case FUSE_READ: return read_file(call);
    case FUSE_WRITE: return write_file(call);
    // Each write has reached the host's kernel when it was answered; close has nothing to add.
    case FUSE_FLUSH: return {};
    case FUSE_FSYNC:
    case FUSE_FSYNCDIR: return sync(call);
    case FUSE_FALLOCATE: return allocate(call);
    case FUSE_LSEEK: return seek(call);
    default: return release(call);
  }
}

Reply Server::dispatch_attributes(Call& call) {
  switch (call.header.opcode) {
    case FUSE_GETATTR: return get_attributes(call);
    case FUSE_SETATTR: return set_attributes(call);
    case FUSE_STATFS: return filesystem_statistics(call);
    case FUSE_GETXATTR: return get_extended(call);
    case FUSE_SETXATTR: return set_extended(call);
    case FUSE_LISTXATTR: return list_extended(call);
    case FUSE_REMOVEXATTR: return remove_extended(call);
    // The guest's kernel asks each of these once and then does without.
    default: return Reply::failure(ENOSYS);
  }
}

Reply Server::initialise(Call& call) {
  const auto wanted = call.arguments.take<fuse_init_in>();
  if (!wanted) return Reply::failure(EINVAL);
  fuse_init_out answer{};
  answer.major = FUSE_KERNEL_VERSION;
  answer.minor = FUSE_KERNEL_MINOR_VERSION;
  if (wanted->major > FUSE_KERNEL_VERSION) return Reply::of(answer);  // It will ask again.
  constexpr uint32_t oldest_minor = 31;
  if (wanted->major < FUSE_KERNEL_VERSION || wanted->minor < oldest_minor)
    return Reply::failure(EPROTO);
  answer.minor = std::min<uint32_t>(wanted->minor, FUSE_KERNEL_MINOR_VERSION);
  answer.max_readahead = wanted->max_readahead;
  answer.max_write = data_bytes_max;
  answer.max_background = 64;
  answer.congestion_threshold = 48;
  answer.time_gran = 1;
  answer.max_pages = static_cast<uint16_t>(data_bytes_max / 4096);
  answer.flags = wanted->flags &
                 (FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO |
                  FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES | FUSE_AUTO_INVAL_DATA);
  return Reply::of(answer);
}

Inode* Server::changeable(uint64_t number, int& error) {
  Inode* const found = inode(number);
  // The virtual root is nobody's to change.
  error = !found ? (number == FUSE_ROOT_ID ? EROFS : ENOENT) : read_only(*found) ? EROFS : 0;
  return error == 0 ? found : nullptr;
}

Handle* Server::find_handle(uint64_t number) {
  const auto found = handles_.find(number);
  return found == handles_.end() ? nullptr : &found->second;
}

uint64_t Server::keep(Handle handle) {
  if (handles_.size() >= handles_max) return 0;
  handles_[next_handle_] = std::move(handle);
  return next_handle_++;
}

}  // namespace files
