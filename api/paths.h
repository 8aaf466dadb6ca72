#pragma once
/// Where one system keeps its things. Several systems live side by side by their app roots.
///
///   CONTAINER_APP_ROOT          durable: state.db, images/, containers/, volumes/, templates/
///     else XDG_DATA_HOME/container, else ~/.local/share/container; root: /var/lib/container
///   run folder                  sockets and pids, gone after a reboot: RUNTIME/container/<hash of
///     app root>, RUNTIME = XDG_RUNTIME_DIR, else /run for root, else /tmp/container-<uid>
///   CONTAINER_LOG_ROOT          the daemons' logs; else <app root>/log
///   CONTAINER_INSTALL_ROOT      programs, kernel, initramfs; else found from our own executable:
///     build tree (bin/ beside guest/) or installed (../libexec/container)

#include <string>

#include "base/result.h"

namespace api {

struct Paths {
  std::string app_root;
  std::string run_root;
  std::string log_root;
  std::string programs;  ///< Folder of container-apiserver, container-network, …
  std::string guest;     ///< Folder of vmlinux, initramfs.img, modules.erofs.
  std::string api_socket() const { return run_root + "/api.sock"; }
  std::string state_file() const { return app_root + "/state.db"; }
  std::string daemon_log() const { return log_root + "/apiserver.log"; }
  /// Why the daemon could not start, one line; absent once it is ready.
  std::string start_message() const { return run_root + "/start-message"; }
  /// A folder for each machine and each network that lives, in these two.
  std::string machines() const { return run_root + "/vms"; }
  std::string networks() const { return run_root + "/networks/networks"; }
};

/// From the environment and our own executable's place. Makes nothing.
base::Result<Paths> find_paths();

}  // namespace api
