#include "guest/agent/implied.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "base/fd.h"
#include "guest/agent/copy_tree.h"

namespace agent {
namespace {

using base::fail_errno;
using base::Result;
using base::UniqueFd;

constexpr int depth_max = 256;  // Of what the writer of layer disks accepts.

/// The folder itself, reached without following a link; errno says why not.
UniqueFd open_folder(int root, const std::string& path) {
  open_how how{};
  how.flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
  const char* name = path.empty() ? "." : path.c_str();
  return UniqueFd(static_cast<int>(::syscall(SYS_openat2, root, name, &how, sizeof how)));
}

/// The first letter of an attribute; 0 without it.
char letter(int folder, const char* attribute) {
  char value = 0;
  const std::string path = fmt::format("/proc/self/fd/{}", folder);
  return ::getxattr(path.c_str(), attribute, &value, 1) == 1 ? value : '\0';
}

class Restoration {
 public:
  explicit Restoration(bool fresh) : fresh_(fresh) {}

  Result<> open(const std::vector<std::string>& layers, const std::string& upper,
                const std::string& merged) {
    for (auto layer = layers.rbegin(); layer != layers.rend(); ++layer)
      layers_.push_back(TRY(base::open_file(*layer, O_PATH | O_DIRECTORY)));
    upper_ = TRY(base::open_file(upper, O_PATH | O_DIRECTORY));
    merged_ = TRY(base::open_file(merged, O_PATH | O_DIRECTORY));
    return {};
  }

  /// `visible`: how many layers, from the top, are not hidden at `path` by something above them.
  Result<> visit(const std::string& path, size_t visible, int depth) {
    std::set<std::string> below;
    {
      std::vector<UniqueFd> stack;
      for (size_t i = 0; i < visible; ++i) {
        UniqueFd folder = open_folder(layers_[i].get(), path);
        if (!folder && errno == ENOENT) continue;
        if (!folder) visible = i;  // Something else hides what is further down.
        if (!folder) break;
        if (letter(folder.get(), "trusted.overlay.opaque") == 'y') visible = i + 1;
        stack.push_back(std::move(folder));
      }
      if (stack.size() < 2 || depth > depth_max) return {};
      TRY(restore(path, stack));
      for (const UniqueFd& folder : stack) TRY(collect_marked(folder.get(), below));
    }
    for (const std::string& name : below)
      TRY_DURING(visit(path.empty() ? name : path + "/" + name, visible, depth + 1), "'{}'", name);
    return {};
  }
  size_t layers() const { return layers_.size(); }

 private:
  Result<> restore(const std::string& path, const std::vector<UniqueFd>& stack) const {
    if (letter(stack.front().get(), implied_xattr) != 'y') return {};
    const auto listed = std::find_if(stack.begin(), stack.end(), [](const UniqueFd& folder) {
      return letter(folder.get(), implied_xattr) != 'y';
    });
    if (listed == stack.end()) return {};
    if (path.empty() ? !fresh_ : bool(open_folder(upper_.get(), path))) return {};
    const UniqueFd shown = open_folder(merged_.get(), path);
    if (!shown)
      return errno == ENOENT || errno == ENOTDIR || errno == ELOOP
                 ? Result<>()
                 : fail_errno(errno, "open the folder as the container sees it");
    copy_attributes(listed->get(), shown.get());
    return {};
  }

  static Result<> collect_marked(int folder, std::set<std::string>& names) {
    if (letter(folder, implied_xattr) == '\0') return {};
    for (const std::string& name : TRY(names_in(folder))) {
      const UniqueFd child = open_folder(folder, name);
      if (child && letter(child.get(), implied_xattr) != '\0') names.insert(name);
    }
    return {};
  }

  const bool fresh_;
  std::vector<UniqueFd> layers_;  ///< Topmost first.
  UniqueFd upper_;
  UniqueFd merged_;
};

}  // namespace

Result<> restore_implied_folders(const std::vector<std::string>& layers, const std::string& upper,
                                 bool fresh, const std::string& merged) {
  if (layers.size() < 2) return {};
  Restoration restoration(fresh);
  TRY(restoration.open(layers, upper, merged));
  return restoration.visit("", restoration.layers(), 0);
}

}  // namespace agent
