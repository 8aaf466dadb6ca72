#include "guest/agent/cgroup.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <memory>
#include <sstream>

#include "base/file.h"

namespace agent {
namespace {

using base::fail_errno;
using base::Result;

const std::string root = "/sys/fs/cgroup";
const std::string folder = root + "/container";
constexpr uint64_t file_bytes_max = 64u << 10;
constexpr int64_t quota_period_us = 100'000;
constexpr int64_t quota_us_min = 1000;

uint32_t processors() {
  return static_cast<uint32_t>(std::max(1L, ::sysconf(_SC_NPROCESSORS_ONLN)));
}

/// `key value` lines.
uint64_t field(const std::string& text, std::string_view key) {
  std::istringstream lines(text);
  std::string name;
  uint64_t value = 0;
  while (lines >> name >> value)
    if (name == key) return value;
  return 0;
}

std::string content(const std::string& file) {
  return base::read_file(folder + "/" + file, file_bytes_max).value_or("");
}

uint64_t number(const std::string& file, uint64_t otherwise) {
  const std::string text = content(file);
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} ? value : otherwise;
}

/// Sum over the devices of `key=N` in io.stat.
uint64_t io_sum(const std::string& text, const std::string& key) {
  uint64_t sum = 0;
  std::istringstream words(text);
  for (std::string word; words >> word;)
    if (word.starts_with(key)) {
      uint64_t value = 0;
      std::from_chars(word.data() + key.size(), word.data() + word.size(), value);
      sum += value;
    }
  return sum;
}

/// What the file says now, read from its beginning through a descriptor that is being watched.
std::string reread(int fd) {
  std::array<char, 512> buffer{};
  const ssize_t count = ::pread(fd, buffer.data(), buffer.size(), 0);
  return count > 0 ? std::string(buffer.data(), static_cast<size_t>(count)) : std::string();
}

}  // namespace

Cgroup::~Cgroup() {
  if (memory_events_) loop_.forget(memory_events_.get());
  if (population_) loop_.forget(population_.get());
}

Result<> Cgroup::write(const char* file, const std::string& value) const {
  const base::UniqueFd target(::openat(folder_.get(), file, O_WRONLY | O_CLOEXEC));
  if (!target) return fail_errno(errno, fmt::format("open '{}' of the cgroup", file));
  TRY_DURING(base::write_all(target.get(), value), "set '{}' of the cgroup to {}", file, value);
  return {};
}

Result<> Cgroup::create() {
  const base::UniqueFd control = TRY(base::open_file(root + "/cgroup.subtree_control", O_WRONLY));
  TRY_DURING(base::write_all(control.get(), "+cpu +memory +pids +io"), "enable cgroup controllers");
  if (::mkdir(folder.c_str(), 0755) != 0 && errno != EEXIST) return fail_errno(errno, folder);
  folder_ = TRY(base::open_file(folder, O_RDONLY | O_DIRECTORY));
  return {};
}

Result<> Cgroup::start_over() {
  if (memory_events_) loop_.forget(memory_events_.get());
  memory_events_.reset();
  folder_.reset();
  kills_ = 0;
  if (::rmdir(folder.c_str()) != 0) return fail_errno(errno, "remove the cgroup");
  return create();
}

/// What all processors together give is no limit: then the scheduler has nothing to count.
Result<> Cgroup::limit_cpus(double cpus) const {
  if (cpus <= 0 || cpus >= static_cast<double>(processors())) return {};
  const auto quota_us = static_cast<int64_t>(cpus * static_cast<double>(quota_period_us));
  return write("cpu.max", fmt::format("{} {}", std::max(quota_us_min, quota_us), quota_period_us));
}

Result<> Cgroup::limit(const guest::ContainerConfig& config, std::function<void()> out_of_memory) {
  out_of_memory_ = std::move(out_of_memory);
  TRY(limit_cpus(config.cpus));
  if (config.memory_bytes > 0) {
    TRY(write("memory.max", std::to_string(config.memory_bytes)));
    TRY(write("memory.oom.group", "1"));
  }
  if (config.pids_limit > 0) TRY(write("pids.max", std::to_string(config.pids_limit)));
  memory_events_ = TRY(base::open_file(folder + "/memory.events", O_RDONLY));
  (void)reread(memory_events_.get());
  return loop_.watch(memory_events_.get(), EPOLLPRI, [this](uint32_t) { on_memory_event(); });
}

void Cgroup::on_memory_event() {
  const uint64_t kills = field(reread(memory_events_.get()), "oom_kill");
  if (kills <= kills_) return;
  kills_ = kills;
  out_of_memory_();
}

Result<> Cgroup::kill_all(std::function<void()> empty) {
  population_ = TRY(base::open_file(folder + "/cgroup.events", O_RDONLY));
  const auto told = std::make_shared<bool>(false);
  const auto check = [this, told, empty = std::move(empty)](uint32_t) {
    if (*told || field(reread(population_.get()), "populated") != 0) return;
    *told = true;
    empty();
  };
  TRY(loop_.watch(population_.get(), EPOLLPRI, check));
  TRY(write("cgroup.kill", "1"));
  loop_.soon([check] { check(0); });
  return {};
}

guest::Statistics Cgroup::statistics() const {
  const std::string cpu = content("cpu.stat");
  const std::string io = content("io.stat");
  struct sysinfo machine {};
  ::sysinfo(&machine);
  const uint64_t memory = static_cast<uint64_t>(machine.totalram) * machine.mem_unit;
  guest::Statistics result;
  result.cpu_usage_ns = field(cpu, "usage_usec") * 1000;
  result.cpu_user_ns = field(cpu, "user_usec") * 1000;
  result.cpu_system_ns = field(cpu, "system_usec") * 1000;
  result.cpus = processors();
  result.memory_bytes = number("memory.current", 0);
  result.memory_cache_bytes = field(content("memory.stat"), "inactive_file");
  result.memory_limit_bytes = std::min(memory, number("memory.max", memory));
  result.processes = number("pids.current", 0);
  result.read_bytes = io_sum(io, "rbytes=");
  result.written_bytes = io_sum(io, "wbytes=");
  return result;
}

}  // namespace agent
