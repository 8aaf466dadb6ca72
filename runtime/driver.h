#pragma once
/// The runtime port over QEMU: one virtual machine for each container.
///
/// Everything is found again after the daemon was away: disks and ends under `app_root`, running
/// machines by what lies beside their sockets under `run_root`.

#include <cstdint>
#include <memory>
#include <string>

#include "base/deadline.h"
#include "base/result.h"
#include "reconciler/ports/build.h"
#include "reconciler/ports/runtime.h"

namespace runtime {

struct RuntimeOptions {
  std::string app_root;  ///< containers/, volumes/, templates/ are made in it.
  std::string run_root;  ///< vms/ is made in it: sockets, gone after a reboot.
  std::string programs;  ///< Folder of container-launch and container-files.
  std::string guest;     ///< Folder of vmlinux, initramfs.img, modules.erofs.
  uint64_t epoch = 1;    ///< Grows with every start of the daemon (api/store.h).
  /// Folder of the static user-mode emulators (`qemu-aarch64-static`, …).
  std::string emulators = "/usr/bin";
  /// `kvm` or `tcg`: no trying. Empty: KVM if a guest boots under it.
  std::string accelerator;
  /// Makes a template for containers as most are, before the first of them is asked for.
  bool prepare_template = false;
};

struct AcceleratorInfo {
  std::string name;    ///< `kvm` or `tcg`.
  std::string reason;  ///< A sentence for people.
};

class RuntimeDriver : public reconciler::RuntimePort, public reconciler::BuildPort {
 public:
  /// Tries the accelerator, which takes a moment once per boot of the host.
  static base::Result<std::unique_ptr<RuntimeDriver>> open(RuntimeOptions options);
  virtual AcceleratorInfo accelerator() const = 0;
  /// Until no template is being made any more; Timeout.
  virtual base::Result<> settle(const base::Deadline& deadline) = 0;
};

}  // namespace runtime
