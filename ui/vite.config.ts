import { readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig, type Plugin } from 'vite';

/** Packages whose code is in the bundle. */
const BUNDLED = ['svelte', 'uplot'];

/** Writes the licenses of what is bundled, and a `.gz` beside each file. */
function finish(): Plugin {
  return {
    name: 'finish',
    apply: 'build',
    closeBundle() {
      const licenses = BUNDLED.map((name) => {
        const folder = join('node_modules', name);
        const { version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
        const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
        const text = file ? readFileSync(join(folder, file), 'utf8') : 'MIT';
        return `${name} ${version}\n\n${text}`;
      });
      writeFileSync('dist/licenses.txt', licenses.join('\n\n----\n\n'));
      const compress = (folder: string) => {
        for (const entry of readdirSync(folder)) {
          const path = join(folder, entry);
          if (statSync(path).isDirectory()) compress(path);
          else if (!path.endsWith('.gz')) writeFileSync(`${path}.gz`, gzipSync(readFileSync(path), { level: 9 }));
        }
      };
      compress('dist');
    },
  };
}

export default defineConfig({
  base: './',
  plugins: [svelte(), finish()],
  build: {
    target: 'es2022',
    modulePreload: false,
    assetsInlineLimit: 0,
    reportCompressedSize: false,
    rolldownOptions: { checks: { pluginTimings: false } },
  },
});
