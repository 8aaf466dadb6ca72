#include "files/inodes.h"

namespace files {

std::string Inode::proc_path() const { return fmt::format("/proc/self/fd/{}", place.get()); }

Inode* Inodes::remember(base::UniqueFd place, size_t share, const struct stat& info) {
  const auto key = std::make_tuple(share, info.st_dev, info.st_ino);
  if (const auto known = by_key_.find(key); known != by_key_.end()) {
    ++known->second->lookups;
    return known->second;
  }
  if (by_number_.size() >= inodes_max) return nullptr;
  auto inode = std::make_unique<Inode>();
  inode->number = next_++;
  inode->place = std::move(place);
  inode->share = share;
  inode->type = info.st_mode & S_IFMT;
  inode->lookups = 1;
  inode->key = key;
  Inode* const result = inode.get();
  by_key_[key] = result;
  by_number_[result->number] = std::move(inode);
  return result;
}

Inode* Inodes::find(uint64_t number) {
  const auto found = by_number_.find(number);
  return found == by_number_.end() ? nullptr : found->second.get();
}

void Inodes::forget(uint64_t number, uint64_t lookups) {
  const auto found = by_number_.find(number);
  if (found == by_number_.end()) return;
  Inode& inode = *found->second;
  inode.lookups -= lookups < inode.lookups ? lookups : inode.lookups;
  if (inode.lookups > 0) return;
  by_key_.erase(inode.key);
  by_number_.erase(found);
}

}  // namespace files
