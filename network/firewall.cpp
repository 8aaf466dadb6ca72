#include "network/firewall.h"

#include <memory>
#include <string>

#include <nftables/libnftables.h>

#include "network/inside.h"
#include "network/names.h"

namespace network {
namespace {

using base::ErrorCode;
using base::fail;

struct FreeContext {
  void operator()(nft_ctx* context) const { nft_ctx_free(context); }
};

base::Result<> run_rules(const std::string& rules) {
  const std::unique_ptr<nft_ctx, FreeContext> context(nft_ctx_new(NFT_CTX_DEFAULT));
  if (!context) return fail(ErrorCode::Internal, "nftables cannot start");
  nft_ctx_buffer_output(context.get());
  nft_ctx_buffer_error(context.get());
  if (nft_run_cmd_from_buffer(context.get(), rules.c_str()) == 0) return {};
  std::string reason = nft_ctx_get_error_buffer(context.get());
  return fail(ErrorCode::Unsupported, "nftables: {}", reason.substr(0, reason.find('\n')));
}

std::string element_commands(std::string_view verb, const TapSetup& setup) {
  return fmt::format(
      "{0} element bridge pins macs {{ \"{1}\" . {2} }}\n"
      "{0} element bridge pins pairs {{ \"{1}\" . {2} . {3} }}\n",
      verb, setup.name, setup.mac, dns::format_ipv4(setup.address));
}

}  // namespace

base::Result<> install_firewall() {
  return run_rules(fmt::format(R"(
add table bridge pins
flush table bridge pins
table bridge pins {{
  set macs {{ type ifname . ether_addr; }}
  set pairs {{ type ifname . ether_addr . ipv4_addr; }}
  chain enter {{
    type filter hook prerouting priority -300; policy drop;
    iifname . ether saddr != @macs drop
    ether type ip iifname . ether saddr . ip saddr @pairs accept
    ether type arp iifname . arp saddr ether . arp saddr ip @pairs accept
  }}
}}
add table ip gate
flush table ip gate
table ip gate {{
  chain enter {{
    type filter hook input priority 0; policy drop;
    iifname "lo" accept
    ct state established,related accept
    iifname "{0}" udp dport 53 accept
    iifname "{0}" tcp dport 53 accept
    iifname "{0}" icmp type echo-request accept
  }}
  chain through {{
    type filter hook forward priority 0; policy drop;
    iifname "{0}" oifname "{0}" accept comment "frames between guests, where br_netfilter asks"
    iifname "{0}" oifname "{1}" ip daddr != 169.254.0.0/16 accept
    iifname "{1}" oifname "{0}" ct state established,related accept
  }}
  chain leave {{
    type nat hook postrouting priority 100; policy accept;
    oifname "{1}" masquerade
  }}
}}
)",
                               bridge_name, uplink_name));
}

base::Result<> pin_guest(const TapSetup& setup) {
  auto pinned = run_rules(element_commands("add", setup));
  // Without nftables set_up_bridge has said so already, and the bridge port itself is locked.
  if (!pinned && pinned.error().code() == ErrorCode::Unsupported && !run_rules("list sets bridge"))
    return {};
  return pinned;
}

base::Result<> unpin_guest(const TapSetup& setup) {
  // Adding first makes the deletion succeed also where the pins were never set.
  return run_rules(element_commands("add", setup) + element_commands("delete", setup));
}

}  // namespace network
