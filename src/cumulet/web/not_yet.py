"""What OpenStack's APIs have and Cumulet has not yet: these answer 501 and name the gap; all else unknown is 404.

A line is ``METHOD... PATH [ACTION] [FIRST-LAST]``, below the service's prefix, with the microversions in which
OpenStack has it where those are not all; GONE marks what Nova itself answers 410 for. A line that has become an
operation counts no more (the registry wins), so nobody need edit this table to add an operation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from cumulet.web.operation import Microversion, Service
from cumulet.web.router import Gap

_VERSIONS = re.compile(r"\d+\.\d+-(\d+\.\d+)?", re.ASCII)


def gaps(services: Iterable[Service]) -> Iterator[Gap]:
    """All lines of the table for these services, operations or not: `Router.gaps` has those that are left."""
    for service in services:
        for line in TABLES.get(service.error_style, "").strip().splitlines():
            words = line.split()
            gone = words[0] == "GONE"
            since, until = _versions(words.pop()) if _VERSIONS.fullmatch(words[-1]) else (None, None)
            at = next(n for n, word in enumerate(words) if word.startswith("/"))
            action = words[at + 1] if len(words) > at + 1 else None
            for method in words[int(gone) : at]:
                yield Gap(
                    service=service, method=method, path=words[at], action=action, gone=gone, since=since, until=until
                )


def _versions(text: str) -> tuple[Microversion, Microversion | None]:
    first, last = text.split("-")
    return Microversion.parse(first), Microversion.parse(last) if last else None


TABLES: dict[str, str] = {
    "compute": """
GET /extensions
GET /extensions/{id}
GET POST /flavors
GET /flavors/detail
GET POST /flavors/{flavor_id}/os-extra_specs
GET PUT DELETE /flavors/{flavor_id}/os-extra_specs/{id}
GET /flavors/{flavor_id}/os-flavor-access
GET /flavors/{id}
PUT /flavors/{id} 2.55-
DELETE /flavors/{id}
POST /flavors/{id}/action addTenantAccess
POST /flavors/{id}/action removeTenantAccess
GET /images 2.1-2.35
GET /images/detail 2.1-2.35
GET DELETE /images/{id} 2.1-2.35
GET POST PUT /images/{image_id}/metadata 2.1-2.38
GET PUT DELETE /images/{image_id}/metadata/{id} 2.1-2.38
GET /limits
GONE GET POST /os-agents
GONE PUT DELETE /os-agents/{id}
GET POST /os-aggregates
GET PUT DELETE /os-aggregates/{id}
POST /os-aggregates/{id}/action add_host
POST /os-aggregates/{id}/action remove_host
POST /os-aggregates/{id}/action set_metadata
POST /os-aggregates/{id}/images 2.81-
POST /os-assisted-volume-snapshots
DELETE /os-assisted-volume-snapshots/{id}
GET /os-availability-zone
GET /os-availability-zone/detail
GET POST /os-baremetal-nodes 2.1-2.35
GET DELETE /os-baremetal-nodes/{id} 2.1-2.35
POST /os-baremetal-nodes/{id}/action add_interface 2.1-2.35
POST /os-baremetal-nodes/{id}/action remove_interface 2.1-2.35
GONE GET POST /os-cells
GONE GET /os-cells/capacities
GONE GET /os-cells/detail
GONE GET /os-cells/info
GONE POST /os-cells/sync_instances
GONE GET PUT DELETE /os-cells/{id}
GONE GET /os-cells/{id}/capacities
GONE POST /os-certificates
GONE GET /os-certificates/{id}
GONE GET POST /os-cloudpipe
GONE PUT /os-cloudpipe/{id}
GET /os-console-auth-tokens/{id}
GONE GET /os-fixed-ips/{id}
GONE POST /os-fixed-ips/{id}/action reserve
GONE POST /os-fixed-ips/{id}/action unreserve
GONE GET /os-floating-ip-dns
GONE GET PUT DELETE /os-floating-ip-dns/{domain_id}/entries/{id}
GONE PUT DELETE /os-floating-ip-dns/{id}
GET /os-floating-ip-pools 2.1-2.35
GET POST /os-floating-ips 2.1-2.35
GONE GET POST /os-floating-ips-bulk
GONE GET PUT /os-floating-ips-bulk/{id}
GET DELETE /os-floating-ips/{id} 2.1-2.35
GONE GET /os-fping
GONE GET /os-fping/{id}
GET /os-hosts 2.1-2.42
GET PUT /os-hosts/{id} 2.1-2.42
GET /os-hosts/{id}/reboot 2.1-2.42
GET /os-hosts/{id}/shutdown 2.1-2.42
GET /os-hosts/{id}/startup 2.1-2.42
GET /os-hypervisors
GET /os-hypervisors/detail
GET /os-hypervisors/statistics 2.1-2.87
GET /os-hypervisors/{id}
GET /os-hypervisors/{id}/search 2.1-2.52
GET /os-hypervisors/{id}/servers 2.1-2.52
GET /os-hypervisors/{id}/uptime 2.1-2.87
GET /os-instance_usage_audit_log
GET /os-instance_usage_audit_log/{id}
GET POST /os-keypairs
GET DELETE /os-keypairs/{id}
GET /os-migrations
GET /os-networks 2.1-2.35
GONE POST /os-networks
GONE POST /os-networks/add
GET /os-networks/{id} 2.1-2.35
GONE DELETE /os-networks/{id}
GONE POST /os-networks/{id}/action associate_host
GONE POST /os-networks/{id}/action disassociate
GONE POST /os-networks/{id}/action disassociate_host
GONE POST /os-networks/{id}/action disassociate_project
GET PUT /os-quota-class-sets/{id}
GET PUT DELETE /os-quota-sets/{id}
GET /os-quota-sets/{id}/defaults
GET /os-quota-sets/{id}/detail
GONE GET POST /os-security-group-default-rules
GONE GET DELETE /os-security-group-default-rules/{id}
POST /os-security-group-rules 2.1-2.35
DELETE /os-security-group-rules/{id} 2.1-2.35
GET POST /os-security-groups 2.1-2.35
GET PUT DELETE /os-security-groups/{id} 2.1-2.35
POST /os-server-external-events
GET POST /os-server-groups
GET DELETE /os-server-groups/{id}
GET /os-services
PUT DELETE /os-services/{id}
GET /os-simple-tenant-usage
GET /os-simple-tenant-usage/{id}
GET POST /os-snapshots 2.1-2.35
GET /os-snapshots/detail 2.1-2.35
GET DELETE /os-snapshots/{id} 2.1-2.35
GET /os-tenant-networks 2.1-2.35
GONE POST /os-tenant-networks
GET /os-tenant-networks/{id} 2.1-2.35
GONE DELETE /os-tenant-networks/{id}
GET POST /os-volumes 2.1-2.35
GET /os-volumes/detail 2.1-2.35
GET DELETE /os-volumes/{id} 2.1-2.35
GET POST /os-volumes_boot 2.1-2.102
GET /os-volumes_boot/detail 2.1-2.102
GET PUT DELETE /os-volumes_boot/{id} 2.1-2.102
POST /os-volumes_boot/{id}/action confirmResize 2.1-2.102
POST /os-volumes_boot/{id}/action createImage 2.1-2.102
POST /os-volumes_boot/{id}/action os-start 2.1-2.102
POST /os-volumes_boot/{id}/action os-stop 2.1-2.102
POST /os-volumes_boot/{id}/action reboot 2.1-2.102
POST /os-volumes_boot/{id}/action rebuild 2.1-2.102
POST /os-volumes_boot/{id}/action resize 2.1-2.102
POST /os-volumes_boot/{id}/action revertResize 2.1-2.102
POST /os-volumes_boot/{id}/action trigger_crash_dump 2.17-2.102
GET POST /servers
GET /servers/detail
GET PUT DELETE /servers/{id}
POST /servers/{id}/action addFixedIp 2.1-2.43
POST /servers/{id}/action addFloatingIp 2.1-2.43
POST /servers/{id}/action addSecurityGroup
POST /servers/{id}/action changePassword
POST /servers/{id}/action confirmResize
POST /servers/{id}/action createBackup
POST /servers/{id}/action createImage
POST /servers/{id}/action evacuate
POST /servers/{id}/action forceDelete
POST /servers/{id}/action injectNetworkInfo
POST /servers/{id}/action lock
POST /servers/{id}/action migrate
POST /servers/{id}/action os-getConsoleOutput
POST /servers/{id}/action os-getSPICEConsole 2.1-2.5
POST /servers/{id}/action os-getSerialConsole 2.1-2.5
POST /servers/{id}/action os-getVNCConsole 2.1-2.5
POST /servers/{id}/action os-migrateLive
POST /servers/{id}/action os-resetState
POST /servers/{id}/action os-start
POST /servers/{id}/action os-stop
POST /servers/{id}/action pause
POST /servers/{id}/action reboot
POST /servers/{id}/action rebuild
POST /servers/{id}/action removeFixedIp 2.1-2.43
POST /servers/{id}/action removeFloatingIp 2.1-2.43
POST /servers/{id}/action removeSecurityGroup
POST /servers/{id}/action rescue
POST /servers/{id}/action resize
POST /servers/{id}/action restore
POST /servers/{id}/action resume
POST /servers/{id}/action revertResize
POST /servers/{id}/action shelve
POST /servers/{id}/action shelveOffload
POST /servers/{id}/action suspend
POST /servers/{id}/action trigger_crash_dump 2.17-
POST /servers/{id}/action unlock
POST /servers/{id}/action unpause
POST /servers/{id}/action unrescue
POST /servers/{id}/action unshelve
GONE POST /servers/{id}/action os-getRDPConsole
GONE POST /servers/{id}/action resetNetwork
GONE GET POST /servers/{server_id}/consoles
GONE GET DELETE /servers/{server_id}/consoles/{id}
GET /servers/{server_id}/diagnostics
GET /servers/{server_id}/ips
GET /servers/{server_id}/ips/{id}
GET POST PUT /servers/{server_id}/metadata
GET PUT DELETE /servers/{server_id}/metadata/{id}
GET /servers/{server_id}/migrations 2.23-
GET /servers/{server_id}/migrations/{id} 2.23-
DELETE /servers/{server_id}/migrations/{id} 2.24-
POST /servers/{server_id}/migrations/{id}/action force_complete 2.22-
GET /servers/{server_id}/os-instance-actions
GET /servers/{server_id}/os-instance-actions/{id}
GET POST /servers/{server_id}/os-interface
GET DELETE /servers/{server_id}/os-interface/{id}
GET /servers/{server_id}/os-security-groups
GET DELETE /servers/{server_id}/os-server-password
GONE GET /servers/{server_id}/os-virtual-interfaces
GET POST /servers/{server_id}/os-volume_attachments
GET PUT DELETE /servers/{server_id}/os-volume_attachments/{id}
POST /servers/{server_id}/remote-consoles 2.6-
GET POST /servers/{server_id}/shares 2.97-
GET DELETE /servers/{server_id}/shares/{id} 2.97-
GET PUT DELETE /servers/{server_id}/tags 2.26-
GET PUT DELETE /servers/{server_id}/tags/{id} 2.26-
GET /servers/{server_id}/topology 2.78-
""",
    "identity": """
GET POST /OS-EP-FILTER/endpoint_groups
GET HEAD PATCH DELETE /OS-EP-FILTER/endpoint_groups/{endpoint_group_id}
GET /OS-EP-FILTER/endpoint_groups/{endpoint_group_id}/endpoints
GET /OS-EP-FILTER/endpoint_groups/{endpoint_group_id}/projects
GET PUT DELETE /OS-EP-FILTER/endpoint_groups/{endpoint_group_id}/projects/{project_id}
GET /OS-EP-FILTER/endpoints/{endpoint_id}/projects
GET /OS-EP-FILTER/projects/{project_id}/endpoint_groups
GET /OS-EP-FILTER/projects/{project_id}/endpoints
HEAD PUT DELETE /OS-EP-FILTER/projects/{project_id}/endpoints/{endpoint_id}
GET /OS-FEDERATION/domains
GET /OS-FEDERATION/identity_providers
GET PUT PATCH DELETE /OS-FEDERATION/identity_providers/{identity_provider_id}
GET /OS-FEDERATION/identity_providers/{idp_id}/protocols
GET PUT PATCH DELETE /OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}
GET /OS-FEDERATION/mappings
GET PUT PATCH DELETE /OS-FEDERATION/mappings/{mapping_id}
GET /OS-FEDERATION/projects
GET /OS-FEDERATION/saml2/metadata
GET /OS-FEDERATION/service_providers
GET PUT PATCH DELETE /OS-FEDERATION/service_providers/{service_provider_id}
GET /OS-INHERIT/domains/{domain_id}/groups/{group_id}/roles/inherited_to_projects
HEAD PUT DELETE /OS-INHERIT/domains/{domain_id}/groups/{group_id}/roles/{role_id}/inherited_to_projects
GET /OS-INHERIT/domains/{domain_id}/users/{user_id}/roles/inherited_to_projects
HEAD PUT DELETE /OS-INHERIT/domains/{domain_id}/users/{user_id}/roles/{role_id}/inherited_to_projects
HEAD PUT DELETE /OS-INHERIT/projects/{project_id}/groups/{group_id}/roles/{role_id}/inherited_to_projects
HEAD PUT DELETE /OS-INHERIT/projects/{project_id}/users/{user_id}/roles/{role_id}/inherited_to_projects
POST /OS-OAUTH1/access_token
PUT /OS-OAUTH1/authorize/{request_token_id}
GET POST /OS-OAUTH1/consumers
GET PATCH DELETE /OS-OAUTH1/consumers/{consumer_id}
POST /OS-OAUTH1/request_token
POST /OS-OAUTH2/token
GET /OS-PKI/revoked
GET /OS-REVOKE/events
GET /OS-SIMPLE-CERT/ca
GET /OS-SIMPLE-CERT/certificates
GET POST /OS-TRUST/trusts
GET DELETE /OS-TRUST/trusts/{trust_id}
GET /OS-TRUST/trusts/{trust_id}/roles
GET HEAD /OS-TRUST/trusts/{trust_id}/roles/{role_id}
GET POST /auth/OS-FEDERATION/identity_providers/{idp_id}/protocols/{protocol_id}/websso
POST /auth/OS-FEDERATION/saml2
POST /auth/OS-FEDERATION/saml2/ecp
GET /auth/OS-FEDERATION/websso/{protocol_id}
GET /auth/catalog
GET /auth/domains
GET /auth/projects
GET /auth/system
GET HEAD POST DELETE /auth/tokens
GET POST /credentials
GET PATCH DELETE /credentials/{credential_id}
GET POST /domains
GET /domains/config/default
GET /domains/config/{group}/default
GET /domains/config/{group}/{option}/default
GET PATCH DELETE /domains/{domain_id}
GET PUT PATCH DELETE /domains/{domain_id}/config
GET PATCH DELETE /domains/{domain_id}/config/{group}
GET PATCH DELETE /domains/{domain_id}/config/{group}/{option}
GET /domains/{domain_id}/groups/{group_id}/roles
HEAD PUT DELETE /domains/{domain_id}/groups/{group_id}/roles/{role_id}
GET /domains/{domain_id}/users/{user_id}/roles
HEAD PUT DELETE /domains/{domain_id}/users/{user_id}/roles/{role_id}
POST /ec2tokens
GET POST /endpoints
GET PATCH DELETE /endpoints/{endpoint_id}
GET /endpoints/{endpoint_id}/OS-ENDPOINT-POLICY/policy
GET POST /groups
GET PATCH DELETE /groups/{group_id}
GET /groups/{group_id}/users
HEAD PUT DELETE /groups/{group_id}/users/{user_id}
GET POST /limits
GET /limits/model
GET PATCH DELETE /limits/{limit_id}
GET POST /policies
GET PATCH DELETE /policies/{policy_id}
GET /policies/{policy_id}/OS-ENDPOINT-POLICY/endpoints
GET PUT DELETE /policies/{policy_id}/OS-ENDPOINT-POLICY/endpoints/{endpoint_id}
GET PUT DELETE /policies/{policy_id}/OS-ENDPOINT-POLICY/services/{service_id}
GET PUT DELETE /policies/{policy_id}/OS-ENDPOINT-POLICY/services/{service_id}/regions/{region_id}
GET POST /projects
GET PATCH DELETE /projects/{project_id}
GET /projects/{project_id}/groups/{group_id}/roles
HEAD PUT DELETE /projects/{project_id}/groups/{group_id}/roles/{role_id}
GET PUT DELETE /projects/{project_id}/tags
GET PUT DELETE /projects/{project_id}/tags/{tag}
GET /projects/{project_id}/users/{user_id}/roles
HEAD PUT DELETE /projects/{project_id}/users/{user_id}/roles/{role_id}
GET POST /regions
GET PUT PATCH DELETE /regions/{region_id}
GET POST /registered_limits
GET PATCH DELETE /registered_limits/{registered_limit_id}
GET /role_assignments
GET /role_inferences
GET POST /roles
GET /roles/{prior_role}/implies
GET HEAD PUT DELETE /roles/{prior_role}/implies/{implies_role}
GET PATCH DELETE /roles/{role_id}
POST /s3tokens
GET POST /services
GET PATCH DELETE /services/{service_id}
GET /system/groups/{group_id}/roles
HEAD PUT DELETE /system/groups/{group_id}/roles/{role_id}
GET /system/users/{user_id}/roles
HEAD PUT DELETE /system/users/{user_id}/roles/{role_id}
GET POST /users
GET PATCH DELETE /users/{user_id}
GET /users/{user_id}/OS-OAUTH1/access_tokens
GET DELETE /users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}
GET /users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}/roles
GET /users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}/roles/{role_id}
GET /users/{user_id}/access_rules
GET DELETE /users/{user_id}/access_rules/{access_rule_id}
GET POST /users/{user_id}/application_credentials
GET DELETE /users/{user_id}/application_credentials/{application_credential_id}
GET POST /users/{user_id}/credentials/OS-EC2
GET DELETE /users/{user_id}/credentials/OS-EC2/{access}
GET POST PUT DELETE /users/{user_id}/credentials/OS-OAUTH2/{credential_id}
GET /users/{user_id}/groups
POST /users/{user_id}/password
GET /users/{user_id}/projects
""",
    "network": """
GET POST /address-groups
GET PUT DELETE /address-groups/{address_group_id}
PUT /address-groups/{address_group_id}/add_addresses
PUT /address-groups/{address_group_id}/remove_addresses
GET POST /address-scopes
GET PUT DELETE /address-scopes/{address_scope_id}
GET /agents
GET PUT DELETE /agents/{agent_id}
GET POST /agents/{agent_id}/dhcp-networks
DELETE /agents/{agent_id}/dhcp-networks/{network_id}
GET POST /agents/{agent_id}/l3-routers
DELETE /agents/{agent_id}/l3-routers/{router_id}
GET DELETE /auto-allocated-topology/{project_id}
GET /availability_zones
GET POST /bgp-peers
GET PUT DELETE /bgp-peers/{bgp_peer_id}
GET POST /bgp-speakers
GET PUT DELETE /bgp-speakers/{bgp_speaker_id}
GET POST /default-security-group-rules
GET PUT DELETE /default-security-group-rules/{default_security_group_rule_id}
GET /extensions
GET /extensions/{ext_alias}
GET POST /flavors
GET PUT DELETE /flavors/{flavor_id}
POST DELETE /flavors/{flavor_id}/service_profiles
DELETE /flavors/{flavor_id}/service_profiles/{profile_id}
GET POST /floatingips
GET PUT DELETE /floatingips/{floatingip_id}
GET POST /floatingips/{floatingip_id}/port_forwardings
GET PUT DELETE /floatingips/{floatingip_id}/port_forwardings/{port_forwarding_id}
GET POST /fwaas/firewall_groups
GET PUT DELETE /fwaas/firewall_groups/{firewall_group_id}
GET POST /fwaas/firewall_policies
GET PUT DELETE /fwaas/firewall_policies/{firewall_policy_id}
GET POST /fwaas/firewall_rules
GET PUT DELETE /fwaas/firewall_rules/{firewall_rule_id}
GET POST /local-ips
GET PUT DELETE /local-ips/{local_ip_id}
GET POST /local_ips/{local_ip_id}/port_associations
DELETE /local_ips/{local_ip_id}/port_associations/{fixed_port_id}
GET /log/loggable-resources
GET POST /log/logs
GET PUT DELETE /log/logs/{log_id}
GET POST /metering/metering-label-rules
GET DELETE /metering/metering-label-rules/{metering_label_rule_id}
GET POST /metering/metering-labels
GET PUT DELETE /metering/metering-labels/{metering_label_id}
GET POST /ndp_proxies
GET PUT DELETE /ndp_proxies/{ndp_proxy_id}
GET /network-ip-availabilities
GET /network-ip-availabilities/{network_id}
GET POST /network_segment_ranges
GET PUT DELETE /network_segment_ranges/{network_segment_range_id}
GET POST /networks
GET PUT DELETE /networks/{network_id}
GET /networks/{network_id}/dhcp-agents
GET POST /ports
GET PUT DELETE /ports/{port_id}
POST PUT /ports/{port_id}/add_allowed_address_pairs
GET POST /ports/{port_id}/bindings
GET PUT DELETE /ports/{port_id}/bindings/{host}
PUT /ports/{port_id}/bindings/{host}/activate
PUT /ports/{port_id}/remove_allowed_address_pairs
GET PUT DELETE /qos/alias_bandwidth_limit_rules/{rule_id}
GET PUT DELETE /qos/alias_dscp_marking_rules/{rule_id}
GET PUT DELETE /qos/alias_minimum_bandwidth_rules/{rule_id}
GET POST /qos/policies
GET PUT DELETE /qos/policies/{qos_policy_id}
GET POST /qos/policies/{qos_policy_id}/bandwidth_limit_rules
GET PUT DELETE /qos/policies/{qos_policy_id}/bandwidth_limit_rules/{rule_id}
GET POST /qos/policies/{qos_policy_id}/dscp_marking_rules
GET PUT DELETE /qos/policies/{qos_policy_id}/dscp_marking_rules/{rule_id}
GET POST /qos/policies/{qos_policy_id}/minimum_bandwidth_rules
GET PUT DELETE /qos/policies/{qos_policy_id}/minimum_bandwidth_rules/{rule_id}
GET POST /qos/policies/{qos_policy_id}/minimum_packet_rate_rules
GET PUT DELETE /qos/policies/{qos_policy_id}/minimum_packet_rate_rules/{rule_id}
GET POST /qos/policies/{qos_policy_id}/packet_rate_limit_rules
GET PUT DELETE /qos/policies/{qos_policy_id}/packet_rate_limit_rules/{rule_id}
GET /qos/rule-types
GET /qos/rule-types/{rule_type}
GET /quotas
GET PUT DELETE /quotas/{tenant_id}
GET /quotas/{tenant_id}/default
GET /quotas/{tenant_id}/details
GET POST /rbac-policies
GET PUT DELETE /rbac-policies/{rbac_policy_id}
GET POST /routers
GET PUT DELETE /routers/{router_id}
PUT /routers/{router_id}/add_external_gateways
PUT /routers/{router_id}/add_extraroutes
PUT /routers/{router_id}/add_router_interface
GET POST /routers/{router_id}/conntrack_helpers
GET PUT DELETE /routers/{router_id}/conntrack_helpers/{conntrack_helper_id}
GET /routers/{router_id}/l3-agents
PUT /routers/{router_id}/remove_external_gateways
PUT /routers/{router_id}/remove_extraroutes
PUT /routers/{router_id}/remove_router_interface
PUT /routers/{router_id}/update_external_gateways
GET POST /security-group-rules
GET DELETE /security-group-rules/{security_group_rule_id}
GET POST /security-groups
GET PUT DELETE /security-groups/{security_group_id}
GET POST /segments
GET PUT DELETE /segments/{segment_id}
GET /service-providers
GET POST /service_profiles
GET PUT DELETE /service_profiles/{service_profile_id}
GET POST /sfc/port_chains
GET PUT DELETE /sfc/port_chains/{port_chain_id}
GET POST /subnetpools
GET PUT DELETE /subnetpools/{subnetpool_id}
PUT /subnetpools/{subnetpool_id}/add_prefixes
PUT /subnetpools/{subnetpool_id}/remove_prefixes
GET POST /subnets
GET PUT DELETE /subnets/{subnet_id}
GET POST /trunks
GET PUT DELETE /trunks/{trunk_id}
PUT /trunks/{trunk_id}/add_subports
GET /trunks/{trunk_id}/get_subports
PUT /trunks/{trunk_id}/remove_subports
GET POST /vpn/endpoint-groups
GET PUT DELETE /vpn/endpoint-groups/{endpoint_group_id}
GET POST /vpn/ikepolicies
GET PUT DELETE /vpn/ikepolicies/{ikepolicy_id}
GET POST /vpn/ipsec-site-connections
GET PUT DELETE /vpn/ipsec-site-connections/{ipsec_site_connection_id}
GET POST /vpn/ipsecpolicies
GET PUT DELETE /vpn/ipsecpolicies/{ipsecpolicy_id}
GET POST /vpn/vpnservices
GET PUT DELETE /vpn/vpnservices/{vpnservice_id}
GET PUT DELETE /{resource_type}/{resource_id}/tags
GET PUT DELETE /{resource_type}/{resource_id}/tags/{tag}
""",
    "image": """
GET DELETE /cache
PUT DELETE /cache/{image_id}
GET /discovery/stores
GET POST /images
GET PATCH DELETE /images/{image_id}
POST /images/{image_id}/actions/deactivate
POST /images/{image_id}/actions/reactivate
GET PUT /images/{image_id}/file
POST /images/{image_id}/import
GET POST /images/{image_id}/locations
GET POST /images/{image_id}/members
GET PUT DELETE /images/{image_id}/members/{member_id}
GET PUT /images/{image_id}/stage
PUT DELETE /images/{image_id}/tags/{tag}
GET /images/{image_id}/tasks
GET /info/import
GET /info/stores
GET /info/stores/detail
GET /info/usage
GET POST /metadefs/namespaces
GET POST /metadefs/namespaces/{namespace_id}/resource_types
DELETE /metadefs/namespaces/{namespace_id}/resource_types/{resource_name}
GET PUT DELETE /metadefs/namespaces/{namespace}
GET POST DELETE /metadefs/namespaces/{namespace}/objects
GET PUT DELETE /metadefs/namespaces/{namespace}/objects/{object_name}
GET POST DELETE /metadefs/namespaces/{namespace}/properties
GET PUT DELETE /metadefs/namespaces/{namespace}/properties/{property_name}
GET POST DELETE /metadefs/namespaces/{namespace}/tags
GET POST PUT DELETE /metadefs/namespaces/{namespace}/tags/{tag_name}
GET /metadefs/resource_types
GET /schemas/metadefs/{schema}
GET /schemas/{schema}
DELETE /stores/{store_name}/{image_id}
GET POST /tasks
GET /tasks/{task_id}
""",
    "placement": """
GET /allocation_candidates
POST /allocations
GET PUT DELETE /allocations/{consumer_uuid}
POST /reshaper
GET POST /resource_classes
GET PUT DELETE /resource_classes/{name}
GET POST /resource_providers
GET PUT DELETE /resource_providers/{rp_uuid}
GET PUT /resource_providers/{rp_uuid}/aggregates
GET /resource_providers/{rp_uuid}/allocations
GET POST PUT DELETE /resource_providers/{rp_uuid}/inventories
GET PUT DELETE /resource_providers/{rp_uuid}/inventories/{resource_class}
GET PUT DELETE /resource_providers/{rp_uuid}/traits
GET /resource_providers/{rp_uuid}/usages
GET /traits
GET PUT DELETE /traits/{name}
GET /usages
""",
}
