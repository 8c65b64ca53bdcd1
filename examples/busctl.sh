#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Make a namespace, look into it and destroy it, with busctl(1) alone.
#
# $manager and $namespace are three words each, and so they have no quotes.
# shellcheck disable=SC2086
set -eu

manager="org.mountnsd1 /org/mountnsd1 org.mountnsd1.Manager"
namespace="org.mountnsd1 /org/mountnsd1/namespace/example org.mountnsd1.Namespace"

call() {
	busctl --system call "$@"
}

call $manager Create 'sa{sv}' example 2 description s 'Made by an example' propagation s private
call $namespace Mount ssss tmpfs /mnt tmpfs size=1m
call $namespace GetChanges
busctl --system get-property $namespace Propagation
call $manager Destroy 'sa{sv}' example 1 kill b true
