#include "guest/agent/system.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/netlink.h>
#include <linux/random.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <ctime>
#include <memory>
#include <vector>

#include "base/deadline.h"
#include "base/file.h"
#include "guest/agent/limits.h"
#include "guest/agent/modules.h"

namespace agent {
namespace {

using base::ErrorCode;
using base::fail;
using base::fail_errno;
using base::Result;
using base::UniqueFd;

constexpr rlim_t open_files_max = 1u << 20;  // What other engines give a container.

Result<> mount_folder(const char* type, const char* folder, unsigned long flags,
                      const char* options) {
  if (::mkdir(folder, 0755) != 0 && errno != EEXIST) return fail_errno(errno, folder);
  if (::mount(type, folder, type, flags, options) != 0 && errno != EBUSY)
    return fail_errno(errno, fmt::format("mount '{}'", folder));
  return {};
}

Result<> write_setting(const std::string& path, std::string_view value) {
  const UniqueFd file = TRY(base::open_file(path, O_WRONLY));
  TRY_DURING(base::write_all(file.get(), value), "set '{}'", path);
  return {};
}

std::vector<std::string> entries(const char* path) {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir(path), ::closedir);
  if (!folder) return names;
  while (const dirent* entry = ::readdir(folder.get()))
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  return names;
}

std::string first_line(const std::string& path) {
  const std::string text = base::read_file(path, 4096).value_or("");
  return text.substr(0, text.find('\n'));
}

std::string look_for_port(std::string_view name) {
  for (const std::string& each : entries("/sys/class/virtio-ports"))
    if (first_line("/sys/class/virtio-ports/" + each + "/name") == name) return "/dev/" + each;
  return "";
}

}  // namespace

Result<> mount_early() {
  constexpr unsigned long quiet = MS_NOSUID | MS_NODEV | MS_NOEXEC;
  TRY(mount_folder("proc", "/proc", quiet, nullptr));
  TRY(mount_folder("sysfs", "/sys", quiet, nullptr));
  TRY(mount_folder("devtmpfs", "/dev", MS_NOSUID, nullptr));
  TRY(mount_folder("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=755"));
  TRY(mount_folder("cgroup2", "/sys/fs/cgroup", quiet, nullptr));
  if (::mkdir(etc_folder, 0755) != 0 && errno != EEXIST) return fail_errno(errno, etc_folder);
  // The kernel asks for modules by this name; it is us.
  if (::symlink("/init", "/sbin/modprobe") != 0 && errno != EEXIST)
    return fail_errno(errno, "/sbin/modprobe");
  // Else a thread looks twice a second whether memory should be compacted, in each idle machine.
  TRY(write_setting("/proc/sys/vm/compaction_proactiveness", "0"));
  // In its own VM a container may use every port and ping as any user.
  TRY(write_setting("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"));
  TRY(write_setting("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"));
  const rlimit files{open_files_max, open_files_max};
  ::setrlimit(RLIMIT_NOFILE, &files);
  const rlimit processes{RLIM_INFINITY, RLIM_INFINITY};
  ::setrlimit(RLIMIT_NPROC, &processes);
  return {};
}

Result<std::string> find_disk(const std::string& serial) {
  for (const std::string& name : entries("/sys/block"))
    if (first_line("/sys/block/" + name + "/serial") == serial) return "/dev/" + name;
  return fail(ErrorCode::NotFound, "there is no disk with the serial number '{}'", serial);
}

/// Ports are made known by messages that arrive after the device itself, each with an event.
Result<std::string> find_port(std::string_view name) {
  const UniqueFd events(
      ::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT));
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = 1;
  if (!events ||
      ::bind(events.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return fail_errno(errno, "listen for devices");
  const int64_t end_ns = base::boottime_ns() + int64_t{limits::port_wait_timeout_ms} * 1'000'000;
  for (;;) {
    if (std::string found = look_for_port(name); !found.empty()) return found;
    const int64_t left_ms = (end_ns - base::boottime_ns()) / 1'000'000;
    if (left_ms <= 0) return fail(ErrorCode::NotFound, "the port '{}' did not appear", name);
    pollfd waiting{events.get(), POLLIN, 0};
    (void)::poll(&waiting, 1, static_cast<int>(left_ms));
    std::array<char, 4096> message;
    while (::recv(events.get(), message.data(), message.size(), 0) > 0) {
    }
  }
}

Result<std::string> boot_id() {
  constexpr size_t uuid_characters = 36;
  return TRY(base::read_file("/proc/sys/kernel/random/boot_id", 64)).substr(0, uuid_characters);
}

Result<> set_read_ahead(const std::string& disk, uint32_t kib) {
  const std::string name = disk.substr(disk.rfind('/') + 1);
  return write_setting("/sys/block/" + name + "/queue/read_ahead_kb", std::to_string(kib));
}

Result<> forget_cached(const std::string& disk) {
  const UniqueFd device = TRY(base::open_file(disk, O_RDONLY));
  if (::ioctl(device.get(), BLKFLSBUF) != 0)
    return fail_errno(errno, "forget what '" + disk + "' held");
  return {};
}

Result<> reread_partitions(const std::string& disk) {
  const UniqueFd device = TRY(base::open_file(disk, O_RDONLY));
  if (::ioctl(device.get(), BLKRRPART) != 0)
    return fail_errno(errno, "read the partition table of the image disk");
  return {};
}

Result<> mount_modules() {
  const std::string partition = TRY(find_disk("image")) + "1";
  if (::mount(partition.c_str(), modules_folder, "erofs", MS_RDONLY | MS_NOSUID | MS_NODEV,
              nullptr) != 0 &&
      errno != EBUSY)
    return fail_errno(errno, "mount the kernel's modules");
  return {};
}

Result<> set_clock(int64_t wall_ns) {
  const timespec time{wall_ns / 1'000'000'000, wall_ns % 1'000'000'000};
  if (::clock_settime(CLOCK_REALTIME, &time) != 0) return fail_errno(errno, "set the clock");
  return {};
}

Result<> move_clock(int64_t forward_ns) {
  constexpr int64_t gradual_ns_max = 500'000'000;  // the kernel takes 1,000 s for it
  if (forward_ns >= -gradual_ns_max && forward_ns <= gradual_ns_max) {
    timex change{};
    change.modes = ADJ_OFFSET_SINGLESHOT;
    change.offset = forward_ns / 1'000;
    if (::adjtimex(&change) < 0) return fail_errno(errno, "adjust the clock");
    return {};
  }
  int64_t wall_ns = 0;
  if (__builtin_add_overflow(base::wall_time_ns(), forward_ns, &wall_ns) || wall_ns < 0)
    return fail(ErrorCode::InvalidArgument, "{} ns is no way to move a clock", forward_ns);
  return set_clock(wall_ns);
}

Result<> add_entropy(const std::string& hex) {
  constexpr size_t bytes_max = 512;
  const size_t count = hex.size() / 2;
  if (hex.size() % 2 != 0 || count > bytes_max)
    return fail(ErrorCode::InvalidArgument, "entropy must be at most {} bytes in hex digits",
                bytes_max);
  alignas(rand_pool_info) std::array<unsigned char, sizeof(rand_pool_info) + bytes_max> pool{};
  for (size_t i = 0; i < count; ++i) {
    const char* digits = hex.data() + 2 * i;
    const auto [end, error] =
        std::from_chars(digits, digits + 2, pool[sizeof(rand_pool_info) + i], 16);
    if (error != std::errc{} || end != digits + 2)
      return fail(ErrorCode::InvalidArgument, "entropy must be hex digits");
  }
  const std::array<int, 2> header = {static_cast<int>(count * 8), static_cast<int>(count)};
  static_assert(sizeof header == sizeof(rand_pool_info));
  std::memcpy(pool.data(), header.data(), sizeof header);
  const UniqueFd random = TRY(base::open_file("/dev/urandom", O_RDWR));
  if (::ioctl(random.get(), RNDADDENTROPY, pool.data()) != 0 ||
      ::ioctl(random.get(), RNDRESEEDCRNG, nullptr) != 0)
    return fail_errno(errno, "feed the random number generator");
  return {};
}

Result<> write_etc_file(const std::string& name, const std::string& content) {
  const UniqueFd file =
      TRY(base::open_file(fmt::format("{}/{}", etc_folder, name), O_WRONLY | O_CREAT, 0644));
  if (::ftruncate(file.get(), 0) != 0) return fail_errno(errno, name);
  return base::write_all(file.get(), content);
}

UniqueFd open_pidfd(pid_t pid) {
  return UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
}

}  // namespace agent
