#include "runtime/qemu/config.h"

#include <algorithm>
#include <set>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "base/json.h"

namespace qemu = runtime::qemu;

namespace {

std::vector<std::string> values_of(const std::vector<std::string>& arguments,
                                   const std::string& option) {
  std::vector<std::string> found;
  for (size_t i = 0; i + 1 < arguments.size(); ++i)
    if (arguments[i] == option) found.push_back(arguments[i + 1]);
  return found;
}

qemu::Plan plan() {
  qemu::Plan made;
  made.uuid = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";
  made.shape = {.cpus = 2, .memory_bytes = 512u << 20, .nics = 2};
  made.clock.tsc_khz = 2'445'428;
  made.layer_files = 3;
  return made;
}

}  // namespace

TEST_CASE("two VMs of one shape differ in nothing but their uuid") {
  qemu::Plan other = plan();
  other.uuid = "00000000-0000-4000-8000-000000000000";
  std::vector<std::string> one = qemu::arguments(plan());
  std::vector<std::string> two = qemu::arguments(other);
  std::replace(two.begin(), two.end(), other.uuid, plan().uuid);
  CHECK(one == two);
}

TEST_CASE("the device list is the short one we allow") {
  std::multiset<std::string> drivers;
  for (const std::string& device : values_of(qemu::arguments(plan()), "-device"))
    drivers.insert(base::parse_json(device).value().at("driver"));
  CHECK(drivers == std::multiset<std::string>{"virtio-balloon-device", "virtio-blk-device",
                                              "virtio-blk-device", "virtio-net-device",
                                              "virtio-net-device", "virtio-serial-device",
                                              "virtserialport", "virtserialport"});
}

TEST_CASE("files are reached through descriptors only") {
  for (const std::string& node : values_of(qemu::arguments(plan()), "-blockdev")) {
    const auto json = base::parse_json(node).value();
    if (!json.contains("filename")) continue;
    CHECK(json.at("filename").get<std::string>().starts_with("/dev/fdset/"));
  }
  CHECK(values_of(qemu::arguments(plan()), "-kernel") ==
        std::vector<std::string>{"/proc/self/fd/11"});
}

TEST_CASE("shared disks are read-only") {
  for (const std::string& node : values_of(qemu::arguments(plan()), "-blockdev")) {
    const auto json = base::parse_json(node).value();
    if (json.at("node-name").get<std::string>().starts_with("image"))
      CHECK(json.value("read-only", false));
  }
}

TEST_CASE("QEMU is confined and its caches are bounded") {
  const auto arguments = qemu::arguments(plan());
  CHECK(values_of(arguments, "-sandbox").at(0).find("spawn=deny") != std::string::npos);
  CHECK(values_of(arguments, "-accel").at(0).find("tb-size=") != std::string::npos);
}

TEST_CASE("an emulated guest is told the clock's rate, a virtualised one is not") {
  const qemu::Clock clock{.tsc_khz = 2'000'000};
  const std::string emulated =
      qemu::kernel_command_line({.accelerator = qemu::Accelerator::Tcg}, clock);
  CHECK(emulated.find("tsc_early_khz=2000000 tsc=reliable lpj=8000000") != std::string::npos);
  const std::string virtualised =
      qemu::kernel_command_line({.accelerator = qemu::Accelerator::Kvm}, clock);
  CHECK(virtualised.find("tsc") == std::string::npos);
}

TEST_CASE("an emulated processor does not claim string instructions it is slow at") {
  CHECK(values_of(qemu::arguments(plan()), "-cpu").at(0) == "max,erms=off,fsrm=off");
}

TEST_CASE("the machine has more memory than the container, in whole large pages") {
  const uint64_t machine = qemu::machine_memory_bytes(256u << 20);
  CHECK(machine > (256u << 20));
  CHECK(machine % (2u << 20) == 0);
}

TEST_CASE("the time stamp counter is measured to a believable rate") {
  CHECK(qemu::measured_tsc_khz() > 500'000);
  CHECK(qemu::measured_tsc_khz() < 10'000'000);
}

TEST_CASE("a clone differs from its template in memory and disk back end, not in its devices") {
  qemu::Plan origin = plan();
  origin.memory = qemu::Memory::Template;
  qemu::Plan clone = plan();
  clone.memory = qemu::Memory::Clone;
  for (const char* option : {"-device", "-machine", "-cpu", "-smp", "-m", "-accel", "-netdev"})
    CHECK(values_of(qemu::arguments(origin), option) == values_of(qemu::arguments(clone), option));
  const auto memory = [](const qemu::Plan& of) {
    return base::parse_json(values_of(qemu::arguments(of), "-object").at(0)).value();
  };
  CHECK(memory(origin).at("share") == true);
  CHECK(memory(clone).at("share") == false);
  CHECK(memory(clone).at("mem-path") == "/proc/self/fd/17");
  CHECK(values_of(qemu::arguments(clone), "-kernel").empty());
  CHECK(values_of(qemu::arguments(clone), "-incoming") == std::vector<std::string>{"defer"});
}
