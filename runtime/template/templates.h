#pragma once
/// Guests that were booted once, saved, and are cloned ever after.
///
/// A template is a folder: the guest's memory as a sparse file, the state of processor and devices,
/// what the console had said, and a description with checksums. Each belongs to a key, made of
/// everything the saved guest depends on: kernel, agent, QEMU, processor, and the command line of
/// its shape. What does not match or does not verify is thrown away, and the container boots cold.
///
/// Templates are made one at a time on a thread of their own, for shapes that were asked for.
/// Thread-safe. One program at a time may use a folder.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/deadline.h"
#include "base/fd.h"
#include "base/result.h"
#include "runtime/io/loop.h"
#include "runtime/qemu/machine.h"
#include "runtime/template/maker.h"

namespace runtime {

struct TemplatesOptions {
  std::string folder;      ///< Holds one folder for each template; stays.
  std::string run_folder;  ///< For sockets of guests that become templates.
  qemu::GuestFiles guest;
  std::string launcher;  ///< Path of `container-launch`.
  std::string system;    ///< The app root, as in MachineRequest.
};

/// What a clone is made from; valid as long as it is held, even if the template is dropped.
struct Template {
  base::UniqueFd memory;     ///< Read-only.
  base::UniqueFd state;      ///< Read-only; its own offset is not used.
  std::string memory_path;   ///< Of `memory`.
  std::string state_path;    ///< Of `state`.
  std::string console_text;  ///< What the guest had said when it was saved.
};

struct StoredTemplate {
  std::string folder;
  uint64_t bytes = 0;
  int64_t used_ns = 0;  ///< The last time, by any program.
};
struct TemplateRoom {
  size_t count = 0;
  uint64_t bytes = 0;
};
/// The folders that have to go to make room for one more: least recently used first.
std::vector<std::string> superfluous(std::vector<StoredTemplate> stored, const TemplateRoom& room);

class Templates {
 public:
  /// Removes what an earlier program left half-made, its processes included.
  static base::Result<std::unique_ptr<Templates>> open(IoLoop& loop, TemplatesOptions options);
  ~Templates();
  Templates(const Templates&) = delete;
  Templates& operator=(const Templates&) = delete;

  /// Verified on its first use by this program; null: there is none.
  std::shared_ptr<const Template> find(const qemu::Shape& shape);
  /// Begins to make one, unless it is there, under way, or failed before.
  void want(const qemu::Shape& shape, std::optional<uint32_t> uid);
  /// Its clones do not come up: away with it, and no other is made by this program.
  void drop(const qemu::Shape& shape, const std::string& reason);
  /// Until nothing is being made; Timeout.
  base::Result<> settle(const base::Deadline& deadline);

 private:
  struct Wanted {
    std::string key;
    qemu::Shape shape;
    std::optional<uint32_t> uid;
  };

  Templates(IoLoop& loop, TemplatesOptions options) : options_(std::move(options)), maker_(loop) {}
  base::Result<> identify();
  void clean_up();
  std::string key_of(const qemu::Shape& shape) const;
  std::string folder_of(const std::string& key) const { return options_.folder + "/" + key; }
  base::Result<std::shared_ptr<const Template>> load(const std::string& key) const;
  void work();
  base::Result<> make(const Wanted& wanted);
  void make_room() const;

  const TemplatesOptions options_;
  std::string identity_;  ///< What is the same for all keys of this host and build.
  uint64_t tsc_khz_ = 0;
  TemplateMaker maker_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::shared_ptr<const Template>> loaded_;
  std::set<std::string> failed_;
  std::deque<Wanted> queue_;  ///< Its first is being made.
  bool stopping_ = false;
  std::thread worker_;
};

}  // namespace runtime
