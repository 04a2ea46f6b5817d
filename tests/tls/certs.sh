#!/bin/sh
# Make every certificate that the TLS tests use, with the `openssl` command. None are kept in the
# repository: keys would be found by scanners, and dates would run out.
#
#     certs.sh DIR        in a few seconds; a DIR that is complete already is left as it is
#
# NAME.pem is a chain with its key behind it, NAME.crt the certificate alone; key.pem is the key of
# almost all leaves. Exit code 77: no openssl command.
set -eu
dir=$1
here=$(cd "$(dirname "$0")" && pwd)
[ -f "$dir/complete" ] && cmp -s "$dir/complete" "$here/certs.sh" && exit 0
command -v openssl >/dev/null 2>&1 || { echo "skipped: no openssl command"; exit 77; }
rm -rf "$dir"
mkdir -p "$dir"
cd "$dir"

cat >ca.cnf <<'C'
[ca]
default_ca = d
[d]
database = index.txt
new_certs_dir = .
serial = serial
default_md = sha256
policy = any
unique_subject = no
copy_extensions = none
email_in_dn = no
[any]
countryName = optional
organizationName = optional
commonName = optional
[req]
distinguished_name = dn
string_mask = utf8only
[dn]
C
: >index.txt
echo 1000 >serial
past=20200101000000Z
since=20240101000000Z
until=20491231235959Z

ec() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }
ec key.pem
ec ca.key
ec inter.key
ec other.key
openssl genrsa -out rsa.key 2048 2>/dev/null
openssl genrsa -out rsa1024.key 1024 2>/dev/null
openssl genpkey -algorithm ed25519 -out ed25519.key

# issue NAME KEY CA SUBJECT FROM TO MD EXTENSION...: CA "-" is NAME itself
issue()
{
    name=$1 key=$2 ca=$3 subject=$4 from=$5 to=$6 md=$7
    shift 7
    : >ext.cnf
    for line; do echo "$line" >>ext.cnf; done
    openssl req -new -config ca.cnf -key "$key" -subj "$subject" -out req.pem -sha256 -utf8
    if [ "$ca" = - ]; then
        signer="-selfsign -keyfile $key"
    else
        signer="-cert $ca.crt -keyfile $ca.key"
    fi
    # shellcheck disable=SC2086
    openssl ca -batch -config ca.cnf $signer -in req.pem -out "$name.crt" -startdate "$from" \
        -enddate "$to" -md "$md" -notext -extfile ext.cnf >ca.log 2>&1 || { cat ca.log; exit 1; }
}

root='basicConstraints=critical,CA:true'
use='keyUsage=critical,keyCertSign,cRLSign'
issue ca ca.key - /O=netio/CN=Test_Root $past $until sha256 "$root" "$use"
issue other other.key - /O=netio/CN=Other_Root $past $until sha256 "$root" "$use"
issue inter inter.key ca /O=netio/CN=Test_Intermediate $past $until sha256 "$root" "$use"
cp ca.crt ca.pem
cat ca.crt other.crt >both.pem

# leaf NAME SAN [KEY [CA [CHAIN [EXTENSION...]]]]: a server's, chain and key in NAME.pem
leaf()
{
    name=$1 san=$2 key=${3:-key.pem} ca=${4:-ca} chain=${5:-}
    [ $# -gt 5 ] && shift 5 || shift $#
    [ -n "$san" ] && set -- "$@" "subjectAltName=$san"
    issue "$name" "$key" "$ca" "${subject_of:-/CN=example.test}" "${from_of:-$since}" \
        "${to_of:-$until}" "${md_of:-sha256}" "$@"
    cat "$name.crt" $chain "$key" >"$name.pem"
}

serve='extendedKeyUsage=serverAuth'
names='DNS:example.test,DNS:www.example.test,IP:127.0.0.1,IP:::1,DNS:localhost'
leaf good "$names" key.pem ca '' "$serve"
leaf rsa "$names" rsa.key ca '' "$serve"
leaf ed25519 "$names" ed25519.key ca '' "$serve"
leaf chain "$names" key.pem inter inter.crt "$serve"
leaf no_inter "$names" key.pem inter ''
leaf no_eku "$names"
leaf other_name DNS:other.test
leaf b_test 'DNS:b.test,DNS:*.b.test' rsa.key
leaf untrusted "$names" key.pem other ''
to_of=20210101000000Z from_of=$past leaf expired "$names"
from_of=20480101000000Z leaf not_yet "$names"
leaf cn_only ''
leaf wild DNS:*.example.test
leaf wild_tld DNS:*.test
leaf wild_all DNS:*
leaf wild_part DNS:exa*.test
leaf wild_middle DNS:foo.*.test
leaf wild_two 'DNS:*.*.example.test'
leaf ip_as_dns DNS:127.0.0.1
subject_of=/CN=127.0.0.1 leaf ip_as_cn DNS:example.test
leaf ip4 IP:127.0.0.1
leaf ip6 IP:::1
leaf ip_other IP:127.0.0.2
leaf dot DNS:example.test.
leaf client_eku "$names" key.pem ca '' extendedKeyUsage=clientAuth
leaf any_eku "$names" key.pem ca '' extendedKeyUsage=anyExtendedKeyUsage
md_of=sha1 leaf sha1 "$names"
leaf rsa1024 "$names" rsa1024.key
# dNSName "example.test\0.evil.test", the way a careless CA was once made to sign it
leaf nul '' key.pem ca '' \
    subjectAltName=DER:30:19:82:17:65:78:61:6d:70:6c:65:2e:74:65:73:74:00:2e:65:76:69:6c:2e:74:65:73:74
many=DNS:example.test
i=0
while [ $i -lt 1400 ]; do many="$many,DNS:n$i.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.test" i=$((i + 1)); done
leaf large "$many"

# A client's
leaf client '' key.pem ca '' extendedKeyUsage=clientAuth
subject_of='/O=netio/CN=Client, Ltd.' leaf client2 email:c@example.test key.pem ca '' \
    extendedKeyUsage=clientAuth
leaf client_other '' key.pem other '' extendedKeyUsage=clientAuth
to_of=20210101000000Z from_of=$past leaf client_expired '' key.pem ca '' \
    extendedKeyUsage=clientAuth

# Self-signed; and issuers that may not issue
issue self key.pem - /CN=example.test $since $until sha256 "subjectAltName=$names"
cat self.crt key.pem >self.pem
issue no_ca inter.key ca /CN=no_ca $past $until sha256 "subjectAltName=$names"
cp inter.key no_ca.key
leaf by_leaf "$names" key.pem no_ca no_ca.crt
issue short inter.key ca /CN=short $past $until sha256 "$root,pathlen:0" "$use"
cp inter.key short.key
issue below key.pem short /CN=below $past $until sha256 "$root" "$use"
cp key.pem below.key
leaf path_length "$names" rsa.key below 'below.crt short.crt'
issue narrow inter.key ca /CN=narrow $past $until sha256 "$root" "$use" \
    'nameConstraints=critical,permitted;DNS:allowed.test'
cp inter.key narrow.key
leaf constraint "$names" key.pem narrow narrow.crt
issue old_inter inter.key ca /CN=old $past 20210101000000Z sha256 "$root" "$use"
cp inter.key old_inter.key
leaf old_chain "$names" key.pem old_inter old_inter.crt
issue old_root ca.key - /CN=sha1_root $past $until sha1 "$root" "$use"
cp ca.key old_root.key
leaf root_sha1 "$names" key.pem old_root ''

# Roots as a directory; a signature that is wrong in one bit
mkdir dir empty
cp ca.crt dir/a.pem
cp other.crt dir/b.pem
echo "not a certificate" >dir/README
openssl x509 -in good.crt -outform DER -out good.der
openssl x509 -in ca.crt -outform DER -out ca.der
size=$(wc -c <good.der)
{ head -c $((size - 1)) good.der; printf '\001'; } >bad_sig.der
openssl x509 -inform DER -in bad_sig.der -out bad_sig.crt
cat bad_sig.crt key.pem >bad_sig.pem

# Forms of the same key
openssl pkcs8 -topk8 -nocrypt -in key.pem -outform DER -out key.der
openssl ec -in key.pem -aes128 -passout pass:secret -out key_secret.pem 2>/dev/null
openssl pkcs8 -topk8 -in key.pem -passout pass:secret -outform DER -out key_secret.der
openssl pkcs12 -export -in chain.crt -inkey key.pem -certfile inter.crt -passout pass:secret \
    -out chain.p12
openssl pkcs12 -export -in good.crt -inkey key.pem -passout pass: -out open.p12
: >empty.pem
echo "-----BEGIN CERTIFICATE-----
AAAA
-----END CERTIFICATE-----" >broken.pem

# OCSP answers: good, revoked, and one for another certificate
openssl ocsp -index index.txt -CA ca.crt -rsigner ca.crt -rkey ca.key -issuer ca.crt \
    -cert good.crt -respout staple_good.der -ndays 3650 >/dev/null 2>&1
openssl ocsp -index index.txt -CA ca.crt -rsigner ca.crt -rkey ca.key -issuer ca.crt \
    -cert rsa.crt -respout staple_rsa.der -ndays 3650 >/dev/null 2>&1
openssl ca -batch -config ca.cnf -cert ca.crt -keyfile ca.key -revoke good.crt >/dev/null 2>&1
openssl ocsp -index index.txt -CA ca.crt -rsigner ca.crt -rkey ca.key -issuer ca.crt \
    -cert good.crt -respout staple_revoked.der -ndays 3650 >/dev/null 2>&1

rm -f ext.cnf req.pem ca.log serial.old index.txt.* [0-9]*.pem
cp "$here/certs.sh" complete
