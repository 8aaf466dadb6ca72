#include "runtime/template/templates.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <sstream>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/sha256.h"
#include "base/text.h"
#include "runtime/folders.h"
#include "runtime/qemu/find.h"

namespace runtime {
namespace {

namespace fs = std::filesystem;
namespace limits = base::limits;

using base::Deadline;
using base::ErrorCode;
using base::fail;
using base::Result;

/// Of what is written here, and of what the agent must find when a clone wakes up.
constexpr int format = 1;
constexpr const char* half_made_prefix = "making-";
constexpr size_t page_bytes = 4096;
constexpr uint64_t description_bytes_max = 64u << 10;
constexpr uint64_t console_bytes_max = 1u << 20;
/// Two measurements of one counter differ by some ten millionths.
constexpr double tsc_tolerance = 0.001;
constexpr size_t key_digits = 32;

std::string digest_digits(std::string_view bytes) {
  return base::sha256_of(bytes).substr(std::string_view("sha256:").size(), key_digits);
}

/// Of every page that is not zero, with its place: holes and zeros are the same memory.
Result<std::string> memory_digest(int fd) {
  base::Sha256 hash;
  std::array<char, page_bytes> page{};
  static constexpr std::array<char, page_bytes> zeros{};
  for (off_t at = ::lseek(fd, 0, SEEK_DATA); at >= 0; at = ::lseek(fd, at, SEEK_DATA)) {
    const off_t end = ::lseek(fd, at, SEEK_HOLE);
    for (; at < end; at += static_cast<off_t>(page_bytes)) {
      const ssize_t count = ::pread(fd, page.data(), page.size(), at);
      if (count < 0) return base::fail_errno(errno, "read a template");
      if (page == zeros) continue;
      hash.update(fmt::format("{}:", at));
      hash.update({page.data(), static_cast<size_t>(count)});
    }
  }
  if (errno != ENXIO) return base::fail_errno(errno, "read a template");
  return hash.finish();
}

Result<std::string> file_digest(const std::string& path) {
  const base::UniqueFd fd = TRY(base::open_file(path, O_RDONLY));
  base::Sha256 hash;
  std::vector<char> buffer(1u << 20);
  for (;;) {
    const size_t count = TRY(base::read_some(fd.get(), buffer));
    if (count == 0) return hash.finish();
    hash.update({buffer.data(), count});
  }
}

/// Name, features and microcode of the processor, as a guest may see them.
std::string processor() {
  const auto text = base::read_file("/proc/cpuinfo", 16u << 20);
  std::istringstream lines(text.value_or(""));
  std::string seen;
  for (std::string line; std::getline(lines, line) && !line.empty();)
    for (const char* name : {"vendor_id", "model name", "stepping", "microcode", "flags"})
      if (line.starts_with(name)) seen += line + "\n";
  return seen;
}

Result<std::string> program_identity(const std::string& path) {
  struct stat facts {};
  if (::stat(path.c_str(), &facts) != 0) return base::fail_errno(errno, path);
  return fmt::format("{} {} {}.{}", path, facts.st_size, facts.st_mtim.tv_sec,
                     facts.st_mtim.tv_nsec);
}

uint64_t bytes_on_disk(const std::string& path) {
  struct stat facts {};
  return ::stat(path.c_str(), &facts) == 0 ? static_cast<uint64_t>(facts.st_blocks) * 512 : 0;
}

int64_t last_used_ns(const std::string& folder) {
  struct stat facts {};
  if (::stat(TemplateFiles{folder}.description().c_str(), &facts) != 0) return 0;
  return facts.st_mtim.tv_sec * 1'000'000'000 + facts.st_mtim.tv_nsec;
}

Result<> describe(const TemplateFiles& files, uint64_t tsc_khz) {
  const base::UniqueFd memory = TRY(base::open_file(files.memory(), O_RDONLY));
  nlohmann::json description{{"tsc_khz", tsc_khz}};
  description["memory"] = TRY(memory_digest(memory.get()));
  description["state"] = TRY(file_digest(files.state()));
  return base::write_file_atomically(files.description(), base::dump_json(description));
}

Result<> verify(const TemplateFiles& files, const Template& found, uint64_t tsc_khz) {
  const auto description =
      TRY(base::parse_json(TRY(base::read_file(files.description(), description_bytes_max))));
  const auto then = static_cast<double>(TRY(base::json_int(description, "tsc_khz")));
  const double drift = then / static_cast<double>(tsc_khz) - 1;
  if (drift > tsc_tolerance || drift < -tsc_tolerance)
    return fail(ErrorCode::InvalidState, "the processor's clock runs at another rate now");
  if (TRY(base::json_string(description, "memory")) != TRY(memory_digest(found.memory.get())) ||
      TRY(base::json_string(description, "state")) != TRY(file_digest(files.state())))
    return fail(ErrorCode::InvalidState, "its checksum is wrong");
  return {};
}

}  // namespace

// ---- the set of them ---------------------------------------------------------------------------

Result<std::unique_ptr<Templates>> Templates::open(IoLoop& loop, TemplatesOptions options) {
  std::unique_ptr<Templates> made(new Templates(loop, std::move(options)));
  TRY(base::make_directories(made->options_.folder));
  TRY(base::make_directories(made->options_.run_folder));
  TRY(made->identify());
  made->clean_up();
  made->worker_ = std::thread([templates = made.get()] { templates->work(); });
  return made;
}

Templates::~Templates() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  maker_.cancel();
  if (worker_.joinable()) worker_.join();
}

Result<> Templates::identify() {
  tsc_khz_ = qemu::measured_tsc_khz();
  identity_ = fmt::format("{}\n{}\n{}\n{}\n{}", format, TRY(file_digest(options_.guest.kernel())),
                          TRY(file_digest(options_.guest.initramfs())),
                          TRY(program_identity(qemu::Plan{}.program)), processor());
  return {};
}

/// A guest that was being made when an earlier program was killed is named by its folder.
void Templates::clean_up() {
  for (const std::string& uuid : folder_names(options_.run_folder)) {
    if (const auto process = qemu::find_by_uuid(uuid))
      if (const auto pidfd = base::open_process(*process))
        (void)base::signal_process(pidfd->get(), SIGKILL);
    (void)base::remove_tree(options_.run_folder + "/" + uuid);
  }
  for (const std::string& name : folder_names(options_.folder))
    if (name.starts_with(half_made_prefix)) (void)base::remove_tree(folder_of(name));
}

std::string Templates::key_of(const qemu::Shape& shape) const {
  qemu::Plan plan;
  plan.shape = shape;
  plan.memory = qemu::Memory::Template;
  std::string text = identity_;
  for (const std::string& argument : qemu::arguments(plan)) text += "\n" + argument;
  return digest_digits(text);
}

// ---- using -------------------------------------------------------------------------------------

std::shared_ptr<const Template> Templates::find(const qemu::Shape& shape) {
  const std::string key = key_of(shape);
  const std::lock_guard lock(mutex_);
  if (const auto known = loaded_.find(key); known != loaded_.end()) return known->second;
  if (!base::path_exists(folder_of(key))) return nullptr;
  Result<std::shared_ptr<const Template>> found = load(key);
  if (!found) {
    spdlog::warn("a template is thrown away: {}", found.error().to_string());
    (void)base::remove_tree(folder_of(key));
    return nullptr;
  }
  loaded_.emplace(key, *found);
  return *found;
}

Result<std::shared_ptr<const Template>> Templates::load(const std::string& key) const {
  const TemplateFiles files{folder_of(key)};
  auto found = std::make_shared<Template>();
  found->memory_path = files.memory();
  found->state_path = files.state();
  found->memory = TRY(base::open_file(files.memory(), O_RDONLY));
  found->state = TRY(base::open_file(files.state(), O_RDONLY));
  found->console_text = TRY(base::read_file(files.console(), console_bytes_max));
  TRY(verify(files, *found, tsc_khz_));
  // Its age is that of its last use by any program.
  (void)::utimensat(AT_FDCWD, files.description().c_str(), nullptr, 0);
  return found;
}

void Templates::drop(const qemu::Shape& shape, const std::string& reason) {
  const std::string key = key_of(shape);
  spdlog::warn("a template is thrown away, its clones do not come up: {}", reason);
  const std::lock_guard lock(mutex_);
  loaded_.erase(key);
  failed_.insert(key);
  (void)base::remove_tree(folder_of(key));
}

// ---- making ------------------------------------------------------------------------------------

void Templates::want(const qemu::Shape& shape, std::optional<uint32_t> uid) {
  Wanted wanted{.key = key_of(shape), .shape = shape, .uid = uid};
  const std::lock_guard lock(mutex_);
  const bool queued = std::any_of(queue_.begin(), queue_.end(),
                                  [&](const Wanted& each) { return each.key == wanted.key; });
  if (queued || failed_.contains(wanted.key) || base::path_exists(folder_of(wanted.key))) return;
  queue_.push_back(std::move(wanted));
  changed_.notify_all();
}

Result<> Templates::settle(const Deadline& deadline) {
  std::unique_lock lock(mutex_);
  while (!queue_.empty()) {
    if (deadline.passed()) return fail(ErrorCode::Timeout, "a template is still being made");
    changed_.wait_for(lock, std::chrono::milliseconds(deadline.remaining_ms()));
  }
  return {};
}

void Templates::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (stopping_) return;
    const Wanted wanted = queue_.front();
    lock.unlock();
    const Result<> made = make(wanted);
    lock.lock();
    if (!made && !stopping_) {
      spdlog::warn("no template can be made, containers of this shape boot cold: {}",
                   made.error().to_string());
      failed_.insert(wanted.key);
    }
    queue_.pop_front();
    changed_.notify_all();
  }
}

Result<> Templates::make(const Wanted& wanted) {
  make_room();
  std::error_code error;
  const fs::space_info space = fs::space(options_.folder, error);
  if (error || space.available < limits::templates_room_bytes)
    return fail(ErrorCode::NoSpace, "less than {} MiB are free for '{}'",
                limits::templates_room_bytes >> 20, options_.folder);
  const std::string uuid = base::random_uuid();
  const std::string folder = folder_of(half_made_prefix + uuid);
  const std::string run_folder = options_.run_folder + "/" + uuid;
  const auto build = [&]() -> Result<> {
    TRY(base::make_directories(folder));
    TRY(base::make_directories(run_folder));
    TRY(maker_.make({.shape = wanted.shape,
                     .guest = options_.guest,
                     .launcher = options_.launcher,
                     .system = options_.system,
                     .uuid = uuid,
                     .run_folder = run_folder,
                     .folder = folder,
                     .uid = wanted.uid}));
    TRY(describe(TemplateFiles{folder}, tsc_khz_));
    TRY(base::sync_directory(folder));
    if (::rename(folder.c_str(), folder_of(wanted.key).c_str()) != 0)
      return base::fail_errno(errno, "keep a template");
    return base::sync_directory(options_.folder);
  };
  const Result<> made = build();
  (void)base::remove_tree(run_folder);
  if (!made) (void)base::remove_tree(folder);
  return made;
}

void Templates::make_room() const {
  std::vector<StoredTemplate> stored;
  for (const std::string& name : folder_names(options_.folder)) {
    const TemplateFiles files{folder_of(name)};
    stored.push_back({.folder = files.folder,
                      .bytes = bytes_on_disk(files.memory()),
                      .used_ns = last_used_ns(files.folder)});
  }
  const TemplateRoom room{.count = limits::templates_max, .bytes = limits::templates_bytes_max};
  for (const std::string& folder : superfluous(std::move(stored), room))
    (void)base::remove_tree(folder);
}

std::vector<std::string> superfluous(std::vector<StoredTemplate> stored, const TemplateRoom& room) {
  std::sort(stored.begin(), stored.end(),
            [](const auto& one, const auto& other) { return one.used_ns > other.used_ns; });
  uint64_t bytes = 0;
  for (const StoredTemplate& each : stored) bytes += each.bytes;
  std::vector<std::string> folders;
  while (!stored.empty() && (stored.size() >= room.count || bytes > room.bytes)) {
    bytes -= stored.back().bytes;
    folders.push_back(std::move(stored.back().folder));
    stored.pop_back();
  }
  return folders;
}

}  // namespace runtime
