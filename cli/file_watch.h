#pragma once
/// Tells when one of some files has changed, also when an editor puts a new file in its place.

#include <map>
#include <set>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace cli {

class FileWatch {
 public:
  static base::Result<FileWatch> open();

  /// From now on these files; absolute paths. Files that do not exist are waited for, as long as
  /// their folder does.
  base::Result<> set(const std::set<std::string>& files);
  /// Readable after a change in one of the folders.
  int event() const { return fd_.get(); }
  /// Whether it was one of the files.
  bool take();

 private:
  explicit FileWatch(base::UniqueFd fd) : fd_(std::move(fd)) {}
  base::UniqueFd fd_;
  std::set<std::string> files_;
  std::map<int, std::string> folders_;  ///< By watch descriptor.
};

}  // namespace cli
